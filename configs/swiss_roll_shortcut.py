"""A shortcut model of the swiss roll: it is told how long a step is asked for.

  python -m diffusion_jax.train --config configs/swiss_roll_shortcut.py --workdir runs/swiss_roll_shortcut
  python -m diffusion_jax.sample --workdir runs/swiss_roll_shortcut --num 5000 --steps 4

8000 steps, a minute and a half of processor time.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                  1      2      4      8
  sliced W1        0.081  0.070  0.047  0.043
  off the curve    0.233  0.191  0.108  0.072

One step and two draw no clean roll yet, for the longest step is learned last, through every shorter one; another seed
was 0.194 and 0.144 off the curve in four and eight. With a constant rate of 1e-3, 6000 steps and smallest steps of
1/32, four steps were 0.266 off.
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.few_step import shortcut
from diffusion_jax.models import two_times


def get_config():
    config = shortcut.with_shortcuts(points.small_config())
    config.train.steps = 8000
    config.train.learning_rate = 3e-3
    config.train.decay_steps = config.train.steps  # to 0: targets are noisy to the end
    config.shortcut.smallest = 16
    config.shortcut.bootstrapped = 0.5
    return config


def build(config):
    data, model = points.data(toys.swiss_rolls), two_times.listening(points.network(config))
    return shortcut.build(config, data, model)
