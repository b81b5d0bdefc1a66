"""A shortcut model of the swiss roll: it is told how long a step is asked for.

  python -m diffusion_jax.train --config configs/swiss_roll_shortcut.py --workdir runs/swiss_roll_shortcut
  python -m diffusion_jax.sample --workdir runs/swiss_roll_shortcut --num 5000 --steps 4

16,000 steps, three minutes of processor time.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                  1      2      4      8
  sliced W1        0.047  0.045  0.043  0.041
  off the curve    0.098  0.070  0.056  0.044

The longest step is learned last, through every shorter one: with 8000 updates one step was 0.233 off the curve.
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.few_step import shortcut
from diffusion_jax.models import two_times


def get_config():
    config = shortcut.with_shortcuts(points.small_config())
    config.train.steps = 16_000
    config.train.learning_rate = 3e-3
    config.train.decay_steps = config.train.steps  # to 0: targets are noisy to the end
    config.shortcut.smallest = 16
    config.shortcut.bootstrapped = 0.5
    return config


def build(config):
    data, model = points.data(toys.swiss_rolls), two_times.listening(points.network(config))
    return shortcut.build(config, data, model)
