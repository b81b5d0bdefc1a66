"""MeanFlow on handwritten digits."""

from diffusion_jax.data import sources
from diffusion_jax.diffusion.few_step.mean_flow import predicted
from diffusion_jax.methods import mean_flow, pixels


def get_config():
    return mean_flow.with_pairs(pixels.config_digits())


def build(config):
    return mean_flow.build(config, source=sources.digits, along=predicted)
