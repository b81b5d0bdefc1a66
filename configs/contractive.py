"""A contractive autoencoder of handwritten digits, 8x8.

python -m diffusion_jax.train --config configs/contractive.py --workdir runs/contractive
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import contractive, images


def get_config():
    return contractive.default_config()


def build(config):
    return contractive.build(config, images.data(config, sources.digits))
