"""The swiss roll by a network that predicts v on a cosine schedule: `configs/swiss_roll_progressive.py` distils it.

python -m diffusion_jax.train --config configs/swiss_roll_v.py --workdir runs/swiss_roll_v
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.few_step import progressive


def get_config():
    return points.small_config()


def build(config):
    return progressive.build_teacher(config, points.data(toys.swiss_rolls), points.network(config), points.BOUNDS)
