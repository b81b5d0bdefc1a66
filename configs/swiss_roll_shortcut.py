"""A shortcut model of the swiss roll: it is told how long a step is asked for.

python -m diffusion_jax.train --config configs/swiss_roll_shortcut.py --workdir runs/swiss_roll_shortcut
python -m diffusion_jax.sample --workdir runs/swiss_roll_shortcut --num 5000 --steps 4
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
