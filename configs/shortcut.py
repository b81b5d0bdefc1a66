"""A shortcut model of handwritten digits."""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels, shortcut


def get_config():
    return shortcut.with_shortcuts(pixels.config_digits())


def build(config):
    return shortcut.build(config, source=sources.digits)
