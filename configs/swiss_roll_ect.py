"""Easy consistency tuning on the swiss roll, from the EDM model of `configs/swiss_roll_edm.py`.

  python -m diffusion_jax.train --config configs/swiss_roll_edm.py --workdir runs/swiss_roll_edm
  python -m diffusion_jax.train --config configs/swiss_roll_ect.py --workdir runs/swiss_roll_ect \\
    --config.distill.teacher=runs/swiss_roll_edm
  python -m diffusion_jax.sample --workdir runs/swiss_roll_ect --num 5000 --steps 2
"""

from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency, teachers

SIGMA_DATA = 1.0  # the teacher's


def get_config():
    config = teachers.with_teacher(points.small_config())
    config.train.decay_steps = config.train.steps  # to 0: targets are noisy to the end
    config.log.preview_steps = 0
    return config


def build(config):
    data, model = points.data(toys.swiss_rolls), points.network(config)
    each = config.train.steps // 8
    return compose(config, consistency.tuned(config, data, model, each, SIGMA_DATA, transforms=points.BOUNDS))
