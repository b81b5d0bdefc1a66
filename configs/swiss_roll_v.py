"""The swiss roll by a network that predicts v on a cosine schedule: `configs/swiss_roll_progressive.py` distils it.

  python -m diffusion_jax.train --config configs/swiss_roll_v.py --workdir runs/swiss_roll_v

6000 steps, 50 seconds of processor time.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                         1      2      4      8     50   1000
  v, DDIM, sliced W1        0.806  0.391  0.180  0.087  0.028  0.023
  v, DDIM, off the curve    0.591  0.324  0.186  0.091  0.069  0.072

No one teacher serves both kinds of students. Progressive distillation takes one that says v, at levels of noise down
to exp(-10); consistency distillation takes EDM's input and output, at levels up to 80. `configs/swiss_roll.py` has
the noise of this config and a larger network; a teacher and its students must have the same one.
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.few_step import progressive


def get_config():
    return points.small_config()


def build(config):
    return progressive.build_teacher(config, points.data(toys.swiss_rolls), points.network(config), points.BOUNDS)
