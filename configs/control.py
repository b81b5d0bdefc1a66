"""A ControlNet on configs/digits.py: digits with given edges.

  python -m diffusion_jax.train --config configs/control.py --workdir runs/control --config.control.base=runs/digits
  python -m diffusion_jax.sample --workdir runs/control --num 100
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import control, pixels


def get_config():
    config = control.with_base(pixels.config_digits())
    config.control.base = "runs/digits"
    config.train.steps = 2000
    return config


def build(config):
    data = pixels.data(config, source=lambda: sources.digits("train"))
    data = pixels.told_edges(data, test=lambda: sources.digits("test"))
    return control.build(config, data, pixels.unet(config))
