"""Handwritten digits and their labels jointly: both are destroyed, and both are drawn.

  python -m diffusion_jax.train --config configs/labelled.py --workdir runs/labelled

Two to three minutes on two CPU cores, 3000 steps. Expect a Fréchet distance of 2.1 and nearest 1.04 in 100
steps, beside 1.1 for the training digits themselves and 12.1 for a Gaussian fit to the pixels (`python -m
experiments.digits_quality --workdir runs/labelled`, 1000 images, one run). A classifier that is right on 98.8 %
of the test digits agrees with 94 % of the labels that are drawn along.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import labelled, pixels


def get_config():
    return pixels.config_digits()


def build(config):
    return labelled.build(config, source=sources.digits, classes=10)
