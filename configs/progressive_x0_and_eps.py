"""Progressive distillation on handwritten digits, of networks that predict x0 and the noise.

  python -m diffusion_jax.train --config configs/x0_and_eps.py --workdir runs/x0_and_eps
  python -m diffusion_jax.distill --config configs/progressive_x0_and_eps.py --teacher runs/x0_and_eps \\
    --workdir runs/progressive_x0_and_eps
  python -m diffusion_jax.sample --workdir runs/progressive_x0_and_eps/steps_4

600 steps a student. Fréchet distances to the training digits (`python -m experiments.tables.few_steps`, 1000 images,
one run), beside those of networks that predict v:

  steps               1      2      4      8     16
  x0 and eps       1.26   0.97   0.86   0.84   0.82
  v                1.31   1.01   0.84   0.77   0.74
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import progressive


def get_config():
    config = progressive.with_steps(pixels.config_digits())
    config.train.steps = 600  # of each student
    config.train.learning_rate = 3e-4
    return config


def build(config):
    data, model = pixels.data(config, sources.digits), pixels.unet(config, outputs=2)
    return progressive.build(config, data, model, parameterization=progressive.X0_AND_EPS)
