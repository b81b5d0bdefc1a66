"""EDM on the swiss roll: what `configs/swiss_roll_consistency.py` and `configs/swiss_roll_ect.py` learn from.

  python -m diffusion_jax.train --config configs/swiss_roll_edm.py --workdir runs/swiss_roll_edm

6000 steps, 50 seconds of processor time.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                           1      2      4      8     50
  EDM, Heun, sliced W1        0.803   54.5  1.921  0.117  0.019
  EDM, Heun, off the curve    0.657   84.7  2.662  0.190  0.047
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import edm, points
from diffusion_jax.methods.compose import compose

SIGMA_DATA = 1.0  # of the points' coordinates


def get_config():
    return points.small_config()


def build(config):
    return compose(config, edm.model_of(points.data(toys.swiss_rolls), points.network(config), SIGMA_DATA))
