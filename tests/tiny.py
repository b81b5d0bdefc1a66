"""A config whose network compiles in seconds: real digits, every part of the real thing, nothing to look at."""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import schedules
from diffusion_jax.methods import ddpm


def get_config():
    config = ddpm.default_config()
    config.data.shape = (8, 8, 1)
    config.data.threads = 1
    config.model.channels = 8
    config.model.multipliers = (1, 2)
    config.model.blocks = 1
    config.model.groups = 4
    config.train.batch_size = 16
    config.train.steps = 20
    config.train.warmup_steps = 5
    config.log.every = 5
    config.log.checkpoint_every = 10
    config.log.sample_every = 0
    config.log.samples = 8
    config.log.preview_steps = 3
    return config


def build(config):
    return ddpm.build(config, source=sources.digits, betas=schedules.linear_betas(config.diffusion.timesteps))
