"""Consistency training on CIFAR-10 with a slow target (Song et al. 2023), from nothing.

  python -m diffusion_jax.train --config configs/consistency_training_slow_cifar.py --workdir runs/ct_cifar

The official values: grids of 2 to 151 points, a target whose decay rises from 0.9 with them, RAdam, batch 512, 800k
updates. The paper reports FIDs of 8.70 in one step and 5.83 in two with LPIPS as the distance, for which
--config.lpips.network and --config.lpips.heads name its weights (docs/how_to/few_steps.md); it is l2 without them.
Not yet trained to its end with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion.few_step import stages
from diffusion_jax.methods import perceptual, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency
from diffusion_jax.models import ResidualNCSNpp


def get_config():
    config = perceptual.with_lpips(pixels.config_edm())
    config.model.dropout = 0.0
    config.train.steps = 800_000
    config.train.learning_rate = 4e-4
    config.train.warmup_steps = 0
    config.train.ema_decay = 0.9999
    config.log.preview_steps = 0
    return config


def build(config):
    data = pixels.data(config, sources.cifar10(config.data.dir))
    model = pixels.unet(config, kind=ResidualNCSNpp)
    distance, held = perceptual.either(config, data)
    growth = stages.growing(2, 150, config.train.steps)
    return compose(config, consistency.trained(data, model, growth, distance=distance, held=held))
