"""Blurring diffusion on handwritten digits: noise that takes fine detail first.

  python -m diffusion_jax.train --config configs/blurring.py --workdir runs/blurring

Two to three minutes on two CPU cores, 3000 steps. Expect a Fréchet distance of 4.0 and nearest 1.19 from the
ancestral sampler in 200 steps, beside 1.1 for the training digits themselves and 12.1 for a Gaussian fit to the
pixels (`python -m experiments.digits_quality --workdir runs/blurring`, 1000 images, one run).
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import blurring, pixels


def get_config():
    return pixels.config_digits()


def build(config):
    return blurring.build(config, source=sources.digits, widest=4.0)
