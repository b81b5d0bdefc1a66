"""A shortcut model of handwritten digits: it is told how long a step is asked for.

  python -m diffusion_jax.train --config configs/shortcut.py --workdir runs/shortcut
  python -m diffusion_jax.sample --workdir runs/shortcut --num 100 --steps 4

2000 steps in ten minutes, on two CPU cores that many other programs shared. What to expect of 1000 images (`python -m
experiments.digits_quality --workdir runs/shortcut --steps N`, one run), beside Euler's steps of configs/flow.py and
12.1 for a Gaussian fit to the pixels:

  steps                     1      2      4      8
  FD                     22.2   9.21   5.28   3.78      nearest 1.66, 1.49, 1.40, 1.33
  FD of flow, Euler    103     13.2    3.86   2.11

With smallest steps of 1/32 and a quarter that bootstraps it had 42.8 and 14.6 in one and two steps: the longest step
is learned last, through every shorter one.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import shortcut
from diffusion_jax.models import two_times


def get_config():
    config = shortcut.with_shortcuts(pixels.config_digits())
    config.shortcut.smallest = 16
    config.shortcut.bootstrapped = 0.5
    config.train.steps = 2000
    return config


def build(config):
    data, model = pixels.data(config, sources.digits), two_times.listening(pixels.unet(config))
    return shortcut.build(config, data, model)
