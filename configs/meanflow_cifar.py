"""MeanFlow on CIFAR-10 (Geng et al. 2025): one step, from nothing.

  python -m diffusion_jax.train --config configs/meanflow_cifar.py --workdir runs/meanflow_cifar

The official values: DDPM++, batch 1024, 800k updates, no guidance. The paper reports an FID of 2.92 in one step, with
EDM's augmentation of images, which is not here. Not yet trained to its end with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import mean_flow
from diffusion_jax.models import DDPMpp, two_times


def get_config():
    config = mean_flow.with_pairs(pixels.config_edm())
    config.model.dropout = 0.2
    config.train.batch_size = 1024
    config.train.steps = 800_000
    config.train.learning_rate = 6e-4
    config.train.warmup_steps = 9766  # 200 epochs
    config.train.ema_decay = 0.9999
    return config


def build(config):
    data = pixels.data(config, sources.cifar10(config.data.dir))
    return mean_flow.build(config, data, two_times.listening(pixels.unet(config, kind=DDPMpp)))
