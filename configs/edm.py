"""EDM on handwritten digits: preconditioning, log-normal noise levels, the Karras grid.

  python -m diffusion_jax.train --config configs/edm.py --workdir runs/edm
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import edm, pixels

SIGMA_DATA = 0.75  # of the digits' pixels in [-1, 1]


def get_config():
    return pixels.config_digits()


def build(config):
    return edm.build(config, source=lambda: sources.digits("train"), sigma_data=SIGMA_DATA)
