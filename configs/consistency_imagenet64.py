"""Consistency distillation on ImageNet 64x64 by class (Song et al. 2023), from `configs/edm_imagenet64.py`.

  python -m diffusion_jax.train --config configs/edm_imagenet64.py --workdir runs/edm_imagenet64
  python -m diffusion_jax.train --config configs/consistency_imagenet64.py --workdir runs/consistency_imagenet64 \\
    --config.distill.teacher=runs/edm_imagenet64
  python -m diffusion_jax.sample --workdir runs/consistency_imagenet64 --num 100 --label 207 --steps 2

The official values: Heun's method on 40 points, a target of decay 0.95, RAdam, batch 2048, 600k updates. The paper
reports FIDs of 6.20 in one step and 4.70 in two with LPIPS as the distance, for which --config.lpips.network and
--config.lpips.heads name its weights (docs/how_to/few_steps.md); it is l2 without them. Not yet trained to its end
with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import parameterizations
from diffusion_jax.methods import perceptual, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency
from diffusion_jax.models import ADMUNet
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.judges import lpips

CLASSES = 1000


def get_config():
    config = perceptual.with_lpips(consistency.with_target(pixels.config_imagenet64()))
    config.distill.points = 40
    config.model.dropout = 0.0
    config.train.steps = 600_000
    config.train.learning_rate = 8e-6
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.9999432189950708
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, sources.imagenet64(config.data.dir)), CLASSES)
    model = pixels.unet(config, kind=ADMUNet, embed={"label": LabelEmbedding(CLASSES)})
    distance, held = perceptual.either(config, data, trunk=lpips.vgg16(lpips.average))
    return compose(
        config,
        consistency.distilled(config, data, model, distance=distance, held=held, time=parameterizations.log_250),
    )
