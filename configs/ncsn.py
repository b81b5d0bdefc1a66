"""NCSN on handwritten digits: scores at many noise levels, annealed Langevin dynamics.

  python -m diffusion_jax.train --config configs/ncsn.py --workdir runs/ncsn
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import ncsn, pixels

SIGMA_MAX = 9.5  # the largest distance between two digits is 9.4


def get_config():
    return pixels.config_digits()


def build(config):
    return ncsn.build(
        config, source=lambda: sources.digits("train"), sigma_min=0.02, sigma_max=SIGMA_MAX, levels=50
    )
