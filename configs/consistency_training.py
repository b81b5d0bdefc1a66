"""A consistency model of handwritten digits from nothing, by improved consistency training.

  python -m diffusion_jax.train --config configs/consistency_training.py --workdir runs/consistency_training
  python -m diffusion_jax.sample --workdir runs/consistency_training --steps 2

6000 steps, on grids of 11 to 161 points. Fréchet distances to the training digits (`python -m
experiments.tables.few_steps`, 1000 images, one run):

  steps      1      2      4      8
  FD      2.07   1.70   1.40   1.60
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion.few_step import stages
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency

SIGMA_DATA = 0.75  # of the digits' pixels in [-1, 1]


def get_config():
    config = pixels.config_digits()
    config.train.steps = 6000
    config.log.preview_steps = 0
    return config


def build(config):
    data, model = pixels.data(config, sources.digits), pixels.unet(config)
    growth = stages.doubling(10, 160, config.train.steps)
    return compose(config, consistency.improved(data, model, growth, SIGMA_DATA))
