"""Super-resolution of handwritten digits, 4x4 to 8x8, told the digit too: the second stage of a cascade.

  python -m diffusion_jax.train --config configs/super_resolution_digits.py --workdir runs/super_resolution_digits
  python -m diffusion_jax.sample --workdir runs/super_resolution_digits --num 36 --condition noise_level=0,0.3,1

TODO
"""

from diffusion_jax.config.values import Config
from diffusion_jax.data import conditions, sources
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import guided, pixels, super_resolution
from diffusion_jax.models.blocks.conditioning import LabelEmbedding, NumberEmbedding

CLASSES = 10


def get_config():
    config = super_resolution.with_low(pixels.config_digits(), (4, 4))
    config.diffusion = Config(**guided.guidance_values(usual=1.0))
    config.train.steps = 1500
    return config


def build(config):
    images = pixels.with_labels(pixels.data(config, source=sources.digits), CLASSES)
    images = images._replace(sample_condition=conditions.labels(CLASSES, null=CLASSES))
    data = super_resolution.told_low(config, images, untold={"label": [CLASSES]})
    told = {"label": LabelEmbedding(CLASSES + 1), "noise_level": NumberEmbedding(1000)}
    method = super_resolution.method(data, pixels.unet(config, embed=told))
    null = guidance.replacing(label=CLASSES)
    method = guided.classifier_free(method, null, config.diffusion.withheld, config.diffusion.guidance)
    return super_resolution.compose_told(config, method)
