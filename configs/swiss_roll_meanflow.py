"""Improved MeanFlow on the swiss roll: from noise to data in one look.

python -m diffusion_jax.train --config configs/swiss_roll_meanflow.py --workdir runs/swiss_roll_meanflow
python -m diffusion_jax.sample --workdir runs/swiss_roll_meanflow --num 5000
"""

from diffusion_jax.data import toys
from diffusion_jax.diffusion.few_step.mean_flow import predicted
from diffusion_jax.methods import points
from diffusion_jax.methods.few_step import mean_flow
from diffusion_jax.models import two_times


def get_config():
    return mean_flow.with_pairs(points.small_config())


def build(config):
    data, model = points.data(toys.swiss_rolls), two_times.listening(points.network(config))
    return mean_flow.build(config, data, model, along=predicted)
