"""Blurring diffusion on handwritten digits: noise that takes fine detail first.

  python -m diffusion_jax.train --config configs/blurring.py --workdir runs/blurring
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import blurring, pixels


def get_config():
    return pixels.config_digits()


def build(config):
    return blurring.build(config, source=lambda: sources.digits("train"), widest=4.0)
