"""Flow matching on handwritten digits: the straight line from noise to data.

  python -m diffusion_jax.train --config configs/flow.py --workdir runs/flow
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import flow, pixels


def get_config():
    return pixels.config_digits()


def build(config):
    return flow.build(config, source=lambda: sources.digits("train"))
