"""Progressive distillation on handwritten digits: students that draw in 16, 8, 4, 2 steps and 1.

  python -m diffusion_jax.train --config configs/v_prediction.py --workdir runs/v_prediction
  python -m diffusion_jax.distill --config configs/progressive.py --teacher runs/v_prediction \\
    --workdir runs/progressive
  python -m diffusion_jax.sample --workdir runs/progressive/steps_4

600 steps a student; six minutes of processor time for all five. Fréchet distances to the training digits (`python
-m experiments.tables.few_steps`, 1000 images, one run):

  steps               1      2      4      8     16     50
  students         1.31   1.01   0.84   0.77   0.74
  teacher, DDIM     149   19.9   3.84   1.46          0.69
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
    return progressive.build(config, pixels.data(config, sources.digits), pixels.unet(config))
