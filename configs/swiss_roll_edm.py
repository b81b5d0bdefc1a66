"""EDM on the swiss roll: what `configs/swiss_roll_consistency.py` and `configs/swiss_roll_ect.py` learn from.

python -m diffusion_jax.train --config configs/swiss_roll_edm.py --workdir runs/swiss_roll_edm
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import edm, points
from diffusion_jax.methods.compose import compose

SIGMA_DATA = 1.0  # of the points' coordinates


def get_config():
    return points.small_config()


def build(config):
    return compose(config, edm.model_of(points.data(toys.swiss_rolls), points.network(config), SIGMA_DATA))
