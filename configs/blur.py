"""Inverse heat dissipation on handwritten digits: blurred away and sharpened back.

  python -m diffusion_jax.train --config configs/blur.py --workdir runs/blur
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import blur, pixels


def get_config():
    return pixels.config_digits()


def build(config):
    digits = sources.digits("train")
    return blur.build(config, source=lambda: digits, widest=8.0, colours=blur.mean_colours(digits))
