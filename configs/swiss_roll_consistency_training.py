"""A consistency model of the swiss roll from nothing, by improved consistency training.

  python -m diffusion_jax.train --config configs/swiss_roll_consistency_training.py --workdir \\
    runs/swiss_roll_consistency_training
  python -m diffusion_jax.sample --workdir runs/swiss_roll_consistency_training --num 5000 --steps 2

6000 steps on grids of 11 to 161 points, a minute of processor time.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                  1      2      4      8
  sliced W1        0.054  0.048  0.036  0.052
  off the curve    0.115  0.105  0.081  0.069
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
