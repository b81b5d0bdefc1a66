"""Easy consistency tuning on the swiss roll, from the EDM model of `configs/swiss_roll_edm.py`.

  python -m diffusion_jax.train --config configs/swiss_roll_edm.py --workdir runs/swiss_roll_edm
  python -m diffusion_jax.train --config configs/swiss_roll_ect.py --workdir runs/swiss_roll_ect \\
    --config.distill.teacher=runs/swiss_roll_edm
  python -m diffusion_jax.sample --workdir runs/swiss_roll_ect --num 5000 --steps 2

6000 steps, a minute of processor time.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                           1      2      4      8     50
  tuned, sliced W1            0.055  0.048  0.034  0.047
  tuned, off the curve        0.108  0.068  0.055  0.051
  EDM, Heun, sliced W1        0.803   54.5  1.921  0.117  0.019
  EDM, Heun, off the curve    0.657   84.7  2.662  0.190  0.047
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency, teachers

SIGMA_DATA = 1.0  # the teacher's


def get_config():
    config = teachers.with_teacher(points.small_config())
    config.train.decay_steps = config.train.steps  # to 0: targets are noisy to the end
    config.log.preview_steps = 0
    return config


def build(config):
    data, model = points.data(toys.swiss_rolls), points.network(config)
    each = config.train.steps // 8
    return compose(config, consistency.tuned(config, data, model, each, SIGMA_DATA, transforms=points.BOUNDS))
