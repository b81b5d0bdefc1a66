"""Guided distillation on handwritten digits, stage 1: one look for two, at any scale of guidance from 1 to 5.

  python -m diffusion_jax.train --config configs/guided_v.py --workdir runs/guided_v
  python -m diffusion_jax.train --config configs/guided_distillation.py --workdir runs/guided_distillation \\
    --config.distill.teacher=runs/guided_v
  python -m diffusion_jax.sample --workdir runs/guided_distillation --guidance 3 --label 3,8

`configs/guided_progressive.py` halves its steps.

2000 steps. At guidance 2 a classifier agrees with all labels of 1000 samples in 16 or 50 steps (`python -m
experiments.digits_quality --workdir runs/guided_distillation --guidance 2`, one run).
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import guided, teachers

CLASSES = 10


def get_config():
    config = guided.with_scales(teachers.with_teacher(pixels.config_digits()))
    config.train.steps = 2000
    config.train.learning_rate = 3e-4
    return config


def build(config):
    data, teacher = guided.labelled(config, sources.digits, CLASSES), guided.network(config, CLASSES)
    null = guidance.replacing(label=CLASSES)
    return compose(config, guided.method(config, data, guided.student_of(teacher), teacher, null))
