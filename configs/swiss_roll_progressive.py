"""Progressive distillation on the swiss roll: students that draw in 16, 8, 4, 2 steps and 1.

  python -m diffusion_jax.train --config configs/swiss_roll_v.py --workdir runs/swiss_roll_v
  python -m diffusion_jax.distill --config configs/swiss_roll_progressive.py --teacher runs/swiss_roll_v \\
    --workdir runs/swiss_roll_progressive
  python -m diffusion_jax.sample --workdir runs/swiss_roll_progressive/steps_1 --num 5000
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.few_step import progressive


def get_config():
    config = progressive.with_steps(points.small_config())
    config.train.steps = 2000  # of each student
    return config


def build(config):
    return progressive.build(config, points.data(toys.swiss_rolls), points.network(config), points.BOUNDS)
