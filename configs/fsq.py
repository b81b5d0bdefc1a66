"""Finite scalar quantisation of handwritten digits, 8x8.

python -m diffusion_jax.train --config configs/fsq.py --workdir runs/fsq
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import fsq, images


def get_config():
    return fsq.default_config()


def build(config):
    return fsq.build(config, images.data(config, sources.digits))
