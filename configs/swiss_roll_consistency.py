"""Consistency distillation on the swiss roll: one step, or a few, from the EDM model of `configs/swiss_roll_edm.py`.

  python -m diffusion_jax.train --config configs/swiss_roll_edm.py --workdir runs/swiss_roll_edm
  python -m diffusion_jax.train --config configs/swiss_roll_consistency.py --workdir runs/swiss_roll_consistency \\
    --config.distill.teacher=runs/swiss_roll_edm
  python -m diffusion_jax.sample --workdir runs/swiss_roll_consistency --num 5000 --steps 2
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency

SIGMA_DATA = 1.0  # the teacher's


def get_config():
    return consistency.with_target(points.small_config())


def build(config):
    data, model = points.data(toys.swiss_rolls), points.network(config)
    return compose(config, consistency.distilled(config, data, model, SIGMA_DATA, transforms=points.BOUNDS))
