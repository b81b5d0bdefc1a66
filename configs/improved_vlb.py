"""Improved DDPM's likelihood model of handwritten digits: L_vlb, at times that are drawn where it is large.

  python -m diffusion_jax.train --config configs/improved_vlb.py --workdir runs/improved_vlb

Four minutes on two CPU cores, 3000 steps: a beginning. The loss, a bound of -log2 p for 256 levels, is then at
5.2 bits a pixel and still falling; the pictures are poor beside those of configs/improved.py (a Fréchet
distance of 10.0, beside 1.1 for the training digits themselves and 12.1 for a Gaussian fit to the pixels
(`python -m experiments.digits_quality --workdir runs/improved_vlb`, 1000 images, one run)).
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.methods import ddpm, improved, pixels


def get_config():
    return ddpm.with_table(pixels.config_digits())


def build(config):
    return improved.build(config, source=sources.digits, criterion=improved.l_vlb, times=time_sampling.loss_aware)
