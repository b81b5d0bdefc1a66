"""Improved consistency training on CIFAR-10 (Song & Dhariwal 2023): a one-step model from nothing.

  python -m diffusion_jax.train --config configs/consistency_training_cifar.py --workdir runs/ict_cifar

The paper's batch of 1024, 400k updates, grids of 11 to 1281 points, and Fourier features a thousandth as fast as the
EDM network's. Its rate, dropout and average were not found in what was read: they are those of consistency
training, and the dropout of EDM. The paper reports FIDs of 2.83 in one step and 2.46 in two. Not yet trained to its
end with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion.few_step import stages
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency
from diffusion_jax.models import ResidualNCSNpp
from diffusion_jax.models.blocks.fourier import FourierFeatures


def get_config():
    config = pixels.config_edm()
    config.train.batch_size = 1024
    config.train.steps = 400_000
    config.train.learning_rate = 4e-4
    config.train.warmup_steps = 0
    config.train.ema_decay = 0.9999
    config.log.preview_steps = 0
    return config


def build(config):
    slow = FourierFeatures(scale=0.02, of=lambda time: time)
    data = pixels.data(config, sources.cifar10(config.data.dir))
    model = pixels.unet(config, kind=ResidualNCSNpp, encode_time=slow)
    return compose(config, consistency.improved(data, model, stages.doubling(10, 1280, config.train.steps)))
