"""Guided distillation on handwritten digits, stage 2: students of 16, 8, 4, 2 steps and 1, at any scale from 1 to 5.

  python -m diffusion_jax.distill --config configs/guided_progressive.py --teacher runs/guided_distillation \\
    --workdir runs/guided_progressive
  python -m diffusion_jax.sample --workdir runs/guided_progressive/steps_4 --guidance 3 --label 3,8

The teacher is a run of `configs/guided_distillation.py`.

1000 steps a student. At guidance 2, Fréchet distances to the training digits (`experiments.tables.few_steps`,
1000 images, one run), and a classifier agrees with all labels in 1, 2 and 4 steps:

  steps               1      2      4      8     16
  students         3.58   3.04   2.90   2.87   2.91
  guided_v, DDIM   19.3   7.32   4.50   3.54   2.63
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import guided, progressive

CLASSES = 10


def get_config():
    config = guided.with_scales(progressive.with_steps(pixels.config_digits()))
    config.train.steps = 1000  # of each student
    config.train.learning_rate = 3e-4
    return config


def build(config):
    data, teacher = guided.labelled(config, sources.digits, CLASSES), guided.network(config, CLASSES)
    return compose(config, guided.halved(config, data, guided.student_of(teacher)))
