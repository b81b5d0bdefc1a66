"""Progressive distillation on the swiss roll: students that draw in 16, 8, 4, 2 steps and 1.

  python -m diffusion_jax.train --config configs/swiss_roll_v.py --workdir runs/swiss_roll_v
  python -m diffusion_jax.distill --config configs/swiss_roll_progressive.py --teacher runs/swiss_roll_v \\
    --workdir runs/swiss_roll_progressive
  python -m diffusion_jax.sample --workdir runs/swiss_roll_progressive/steps_1 --num 5000

2000 steps a student; two minutes of processor time for all five.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                          1      2      4      8     50
  students, sliced W1        0.031  0.031  0.031  0.031
  students, off the curve    0.068  0.068  0.068  0.068
  v, DDIM, sliced W1         0.806  0.391  0.180  0.087  0.028
  v, DDIM, off the curve     0.591  0.324  0.186  0.091  0.069

In each number of steps the students draw what 32 steps of their teacher draw.
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
