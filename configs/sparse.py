"""A sparse autoencoder of handwritten digits, 8x8: 100 units, each on for a few digits.

python -m diffusion_jax.train --config configs/sparse.py --workdir runs/sparse
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, sparse


def get_config():
    return sparse.default_config()


def build(config):
    return sparse.build(config, images.data(config, sources.digits))
