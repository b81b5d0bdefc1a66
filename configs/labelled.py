"""Handwritten digits and their labels jointly: both are destroyed, and both are drawn.

  python -m diffusion_jax.train --config configs/labelled.py --workdir runs/labelled
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import labelled, pixels


def get_config():
    return pixels.config_digits()


def build(config):
    return labelled.build(config, source=lambda: sources.digits("train"), classes=10)
