"""A swiss roll in the plane: the diffusion that can be watched.

  python -m diffusion_jax.train --config configs/swiss_roll.py --workdir runs/swiss_roll
  python -m diffusion_jax.sample --workdir runs/swiss_roll --num 5000 --film

A minute on two CPU cores, 10,000 steps of 256 points. Expect a clean spiral of one and a half turns, and with
--film its way out of the noise.
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points


def get_config():
    return points.default_config()


def build(config):
    return points.build(config, source=toys.swiss_rolls)
