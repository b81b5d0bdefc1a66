"""A variational autoencoder of handwritten digits, 8x8, with one learned variance.

python -m diffusion_jax.train --config configs/vae.py --workdir runs/vae
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vae


def get_config():
    return vae.default_config()


def build(config):
    return vae.build(config, images.data(config, sources.digits))
