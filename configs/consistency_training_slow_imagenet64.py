"""Consistency training on ImageNet 64x64 by class with a slow target (Song et al. 2023), from nothing.

  python -m diffusion_jax.train --config configs/consistency_training_slow_imagenet64.py --workdir runs/ct_imagenet64

The paper's values: grids of 2 to 201 points, a target whose decay rises from 0.95 with them, RAdam, batch 2048, 800k
updates. It reports FIDs of 13.0 in one step and 11.1 in two with LPIPS as the distance, for which
--config.lpips.network and --config.lpips.heads name its weights (docs/how_to/few_steps.md); it is l2 without them.
Not yet trained to its end with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import parameterizations
from diffusion_jax.diffusion.few_step import stages
from diffusion_jax.methods import perceptual, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency
from diffusion_jax.models import ADMUNet
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.judges import lpips

CLASSES = 1000


def get_config():
    config = perceptual.with_lpips(pixels.config_imagenet64())
    config.model.dropout = 0.0
    config.train.steps = 800_000
    config.train.learning_rate = 8e-6
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.9999432189950708
    config.log.preview_steps = 0
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, sources.imagenet64(config.data.dir)), CLASSES)
    model = pixels.unet(config, kind=ADMUNet, embed={"label": LabelEmbedding(CLASSES)})
    distance, held = perceptual.either(config, data, trunk=lpips.vgg16(lpips.average))
    growth = stages.growing(2, 200, config.train.steps)
    method = consistency.trained(
        data, model, growth, start=0.95, distance=distance, held=held, time=parameterizations.log_250
    )
    return compose(config, method)
