"""Finite scalar quantisation (Mentzer et al. 2024) in VQ-VAE's network: no codebook, and no cost but the error."""

import math

from ml_collections import ConfigDict

from diffusion_jax.autoencoding import quantizers
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.methods.autoencoders import vq_vae
from diffusion_jax.methods.autoencoders.compose import Autoencoding, Tokens, composed
from diffusion_jax.training.experiment import Data


def default_config() -> Config:
    """Values for the digits: 35 codes at 4x4 positions."""
    config = vq_vae.config_digits()
    del config.model.dim
    level = values.Whole(2, 2**16)
    config.model.levels = values.listed((7, 5), "levels that each number of a vector is rounded to", level, 1, 64)
    return config


def method(config: ConfigDict, data: Data) -> Autoencoding:
    """An autoencoder of `data` whose codes are points of a grid.

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [0, 1] (`images.data`).
    """
    levels = tuple(config.model.levels)
    tokens = Tokens(math.prod(levels), quantizers.on_grid(levels))
    model = vq_vae.network(config, data, len(levels))
    return vq_vae.discrete(config, data, model, quantizers.finite_scalar(levels), tokens)


build = composed(method)
