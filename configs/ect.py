"""Easy consistency tuning on handwritten digits, from the EDM model of `configs/edm.py`.

  python -m diffusion_jax.train --config configs/edm.py --workdir runs/edm
  python -m diffusion_jax.train --config configs/ect.py --workdir runs/ect --config.distill.teacher=runs/edm
  python -m diffusion_jax.sample --workdir runs/ect --steps 2

3000 steps. Fréchet distances to the training digits (`python -m experiments.tables.few_steps`, 1000 images, one run):

  steps               1      2      4      8     18
  tuned            2.82   2.45   1.81   2.49
  EDM, Heun         148    201   14.8   1.17   0.95
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency, teachers

SIGMA_DATA = 0.75  # the teacher's


def get_config():
    config = teachers.with_teacher(pixels.config_digits())
    config.train.learning_rate = 3e-4
    config.log.preview_steps = 0
    return config


def build(config):
    data, model = pixels.data(config, sources.digits), pixels.unet(config)
    return compose(config, consistency.tuned(config, data, model, config.train.steps // 8, SIGMA_DATA))
