"""Improved MeanFlow on the swiss roll: from noise to data in one look.

  python -m diffusion_jax.train --config configs/swiss_roll_meanflow.py --workdir runs/swiss_roll_meanflow
  python -m diffusion_jax.sample --workdir runs/swiss_roll_meanflow --num 5000

6000 steps, 70 seconds of processor time.

Sliced Wasserstein distances to the test points, and mean distances from the curve, beside 0.021 and 0.039 for
training points and 0.152 and 0.349 for a Gaussian fit (`python -m experiments.tables.points`, 5000 points, one run;
the gallery has two):

  steps                  1      2      4      8
  sliced W1        0.071  0.056  0.058  0.065
  off the curve    0.080  0.056  0.044  0.050
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
