"""A consistency model of handwritten digits from nothing, as first published: its target follows slowly.

  python -m diffusion_jax.train --config configs/consistency_training_slow.py --workdir runs/consistency_training_slow
  python -m diffusion_jax.sample --workdir runs/consistency_training_slow --steps 2

6000 steps, on grids that grow from 2 points to 21, with the squared error. Fréchet distances to the training digits
(`python -m experiments.tables.few_steps`, 1000 images, one run), beside configs/consistency_training.py:

  steps          1      2      4      8
  FD          9.20   6.38   5.74   4.75
  improved    2.07   1.70   1.40   1.60

The paper's 151 points are for 800,000 steps: in 6000 the distances were 409, 48.3, 38.3 and 12.5.
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
    growth = stages.growing(2, 20, config.train.steps)
    return compose(config, consistency.trained(data, model, growth, SIGMA_DATA))
