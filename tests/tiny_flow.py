"""The network of `tests.tiny` read as one of flow matching: a likelihood to a tolerance, without a run of its own."""

from diffusion_jax.data import sources
from diffusion_jax.methods import flow
from tests.tiny import get_config as get_config


def build(config):
    return flow.build(config, source=sources.digits)
