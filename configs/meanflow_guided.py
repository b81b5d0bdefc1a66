"""MeanFlow of handwritten digits by their label, with guidance inside."""

from diffusion_jax.data import sources
from diffusion_jax.diffusion.few_step.mean_flow import predicted
from diffusion_jax.methods import mean_flow, pixels
from diffusion_jax.methods.compose import compose

CLASSES = 10


def get_config():
    return mean_flow.with_guidance(mean_flow.with_pairs(pixels.config_digits()))


def build(config):
    method = mean_flow.method(config, source=sources.digits, along=predicted)
    return compose(config, mean_flow.guided(config, method, CLASSES))
