"""A k-sparse autoencoder of handwritten digits, 8x8: 3 of 100 units make a digit.

python -m diffusion_jax.train --config configs/ksparse.py --workdir runs/ksparse
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, k_sparse


def get_config():
    return k_sparse.default_config()


def build(config):
    return k_sparse.build(config, images.data(config, sources.digits))
