"""Handwritten digits by their label, with v and classifier-free guidance.

  python -m diffusion_jax.train --config configs/guided_v.py --workdir runs/guided_v

`configs/guided_distillation.py` distils it.
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
