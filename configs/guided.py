"""Handwritten digits by their label, with classifier-free guidance.

  python -m diffusion_jax.train --config configs/guided.py --workdir runs/guided
  python -m diffusion_jax.sample --workdir runs/guided --num 100 --guidance 2
  python -m diffusion_jax.sample --workdir runs/guided --num 100 --label 3,8
"""

from diffusion_jax.data import sources
from diffusion_jax.models.conditioning import LabelEmbedding
from diffusion_jax.recipes import guided, pixels

CLASSES = 10


def get_config():
    return guided.with_guidance(pixels.config_digits())


def build(config):
    data = pixels.told_labels(pixels.data(config, source=lambda: sources.digits("train")), CLASSES)
    model = pixels.unet(config, outputs=2, embed={"label": LabelEmbedding(CLASSES + 1)})
    return guided.build(config, data, CLASSES, model)
