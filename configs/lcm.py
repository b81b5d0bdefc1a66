"""Latent consistency distillation on handwritten digits: a few steps, at any scale of guidance from 1 to 5.

python -m diffusion_jax.train --config configs/guided.py --workdir runs/guided
python -m diffusion_jax.train --config configs/lcm.py --workdir runs/lcm --config.distill.teacher=runs/guided
python -m diffusion_jax.sample --workdir runs/lcm --steps 2 --guidance 3 --label 3,8
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import guided, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.ddpm import with_table
from diffusion_jax.methods.few_step import lcm
from diffusion_jax.methods.few_step.guided import with_scales
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES = 10


def get_config():
    config = with_scales(lcm.with_entries(with_table(pixels.config_digits())))
    config.train.learning_rate = 3e-4
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, source=sources.digits), CLASSES)
    model = pixels.unet(config, outputs=2, embed={"label": LabelEmbedding(CLASSES + 1)})
    teacher = guided.conditional(config, data, CLASSES, model)
    null = guidance.replacing(label=CLASSES)
    return compose(config, lcm.guided(config, teacher, config.diffusion.timesteps, null))
