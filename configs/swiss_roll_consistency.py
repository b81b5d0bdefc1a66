"""Consistency distillation on the swiss roll: one step, or a few, from the EDM model of `configs/swiss_roll_edm.py`.

  python -m diffusion_jax.train --config configs/swiss_roll_edm.py --workdir runs/swiss_roll_edm
  python -m diffusion_jax.train --config configs/swiss_roll_consistency.py --workdir runs/swiss_roll_consistency \\
    --config.distill.teacher=runs/swiss_roll_edm
  python -m diffusion_jax.sample --workdir runs/swiss_roll_consistency --num 5000 --steps 2

6000 steps, a minute of processor time.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                           1      2      4      8     50
  student, sliced W1          0.024  0.029  0.026  0.032
  student, off the curve      0.071  0.068  0.072  0.068
  EDM, Heun, sliced W1        0.803   54.5  1.921  0.117  0.019
  EDM, Heun, off the curve    0.657   84.7  2.662  0.190  0.047
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency

SIGMA_DATA = 1.0  # the teacher's


def get_config():
    return consistency.with_target(points.small_config())


def build(config):
    data, model = points.data(toys.swiss_rolls), points.network(config)
    return compose(config, consistency.distilled(config, data, model, SIGMA_DATA, transforms=points.BOUNDS))
