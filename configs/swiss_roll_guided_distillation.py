"""Guided distillation on the swiss roll: one look for two, at any scale of guidance from 1 to 5.

  python -m diffusion_jax.train --config configs/swiss_roll_guided.py --workdir runs/swiss_roll_guided
  python -m diffusion_jax.train --config configs/swiss_roll_guided_distillation.py --workdir \\
    runs/swiss_roll_guided_distillation --config.distill.teacher=runs/swiss_roll_guided
  python -m diffusion_jax.sample --workdir runs/swiss_roll_guided_distillation --num 5000 --guidance 3 --label 0,2

6000 steps, 70 seconds of processor time. In 50 steps it draws as its teacher does (`python -m
experiments.tables.points --guidance G`, 5000 points, one run):

  guidance                                   1        3
  student, on the half turn told        99.0 %  100.0 %
  teacher, on the half turn told        98.6 %  100.0 %
  student, off the curve                 0.052    0.024
  teacher, off the curve                 0.052    0.025
"""

from diffusion_jax.data import toys
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import points
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import guided, teachers
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES = toys.HALF_TURNS


def get_config():
    return guided.with_scales(teachers.with_teacher(points.small_config()))


def build(config):
    data = guided.with_labels(points.data(toys.swiss_rolls), CLASSES)
    teacher = points.network(config, embed={"label": LabelEmbedding(CLASSES + 1)})
    null = guidance.replacing(label=CLASSES)
    return compose(config, guided.method(config, data, guided.student_of(teacher), teacher, null, points.BOUNDS))
