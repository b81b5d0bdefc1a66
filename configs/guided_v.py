"""Handwritten digits by their label, with v and classifier-free guidance.

  python -m diffusion_jax.train --config configs/guided_v.py --workdir runs/guided_v

`configs/guided_distillation.py` distils it.

3000 steps, some three minutes of processor time. Fréchet distances to the training digits at guidance 2 are 19.3,
7.32, 4.50, 3.54 and 3.12 by DDIM in 1, 2, 4, 8 and 16 steps (`experiments.tables.few_steps`, 1000 images, one run).
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import guided, progressive
from diffusion_jax.methods.guided import classifier_free

CLASSES = 10


def get_config():
    return pixels.config_digits()


def build(config):
    data = guided.labelled(config, sources.digits, CLASSES)
    teacher = progressive.teacher(config, data, guided.network(config, CLASSES))
    return compose(config, classifier_free(teacher, guidance.replacing(label=CLASSES)))
