"""A ControlNet on configs/digits.py: digits with given edges.

  python -m diffusion_jax.train --config configs/control.py --workdir runs/control --config.control.base=runs/digits
  python -m diffusion_jax.sample --workdir runs/control --num 100

Train configs/digits.py first. Three minutes on two CPU cores, 2000 steps; the base does not change. By default
samples are told the edges of test digits; with --condition FILE.npz others: hint, float [N, 8, 8, 1], 0 to 1.4.
What to expect (`python -m experiments.control_quality --workdir runs/control`, 500 digits): a correlation of 0.98
between the edges drawn and those told, beside 0.39 with the edges told to others.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import control, pixels


def get_config():
    config = control.with_base(pixels.config_digits())
    config.control.base = "runs/digits"
    config.train.steps = 2000
    return config


def build(config):
    data = pixels.with_edges(pixels.data(config, source=sources.digits))
    return control.build(config, data, pixels.unet(config))
