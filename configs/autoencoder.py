"""A plain autoencoder of handwritten digits, 8x8: 16 numbers stand for 64.

python -m diffusion_jax.train --config configs/autoencoder.py --workdir runs/autoencoder
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, plain


def get_config():
    return plain.default_config()


def build(config):
    return plain.build(config, images.data(config, sources.digits))
