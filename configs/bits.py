"""Analog bits on handwritten digits: 17 levels of grey as five real numbers each, and self-conditioning.

  python -m diffusion_jax.train --config configs/bits.py --workdir runs/bits

Two to three minutes on two CPU cores, 3000 steps. Expect a Fréchet distance of 3.3 and nearest 1.25 in 100
steps, beside 1.1 for the training digits themselves and 12.1 for a Gaussian fit to the pixels (`python -m
experiments.digits_quality --workdir runs/bits`, 1000 images, one run).
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import bits, pixels

LEVELS, BITS = 17, 5


def get_config():
    return pixels.config_digits()


def build(config):
    return bits.build(config, pixels.levels(config, sources.digits, LEVELS), BITS)
