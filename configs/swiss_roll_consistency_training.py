"""A consistency model of the swiss roll from nothing, by improved consistency training.

  python -m diffusion_jax.train --config configs/swiss_roll_consistency_training.py --workdir \\
    runs/swiss_roll_consistency_training
  python -m diffusion_jax.sample --workdir runs/swiss_roll_consistency_training --num 5000 --steps 2
"""

from diffusion_jax.data import toys
from diffusion_jax.diffusion.few_step import stages
from diffusion_jax.methods import points
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency

SIGMA_DATA = 1.0  # of the points' coordinates


def get_config():
    config = points.small_config()
    config.train.decay_steps = config.train.steps  # to 0: targets are noisy to the end
    config.log.preview_steps = 0
    return config


def build(config):
    data, model = points.data(toys.swiss_rolls), points.network(config)
    growth = stages.doubling(10, 160, config.train.steps)
    return compose(config, consistency.improved(data, model, growth, SIGMA_DATA, points.BOUNDS))
