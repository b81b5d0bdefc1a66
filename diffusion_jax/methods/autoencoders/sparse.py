"""The sparse autoencoder: each unit is off for most examples."""

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bottlenecks, laws, objectives, penalties
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.methods.autoencoders import images, looks, surveys
from diffusion_jax.methods.autoencoders.compose import Autoencoding, composed, decode_with, encode_with, init_of
from diffusion_jax.methods.autoencoders.plain import SQUARED_ERROR
from diffusion_jax.models.autoencoders.mlp import MLPAutoencoder
from diffusion_jax.training import optimizers
from diffusion_jax.training.experiment import Data

START = 0.5  # mean activation of a sigmoid of small numbers


def default_config() -> Config:
    """Values for the digits, with 100 units."""
    config = images.with_perceptron(images.config_digits(), codes=100)
    config.model.hidden = ()
    config.sparsity = Config(
        rho=values.number(0.05, "mean activation of a unit that is wanted", 1e-4, 1 - 1e-4),
        weight=values.number(0.1, "of the divergence from it, beside a summed squared error", 0, 1e9),
        decay=values.share(0.9, "decay of the moving mean activation; 0 is the last batch's", below=True),
    )
    return config


def method(config: ConfigDict, data: Data) -> Autoencoding:
    """An autoencoder by squared error with sparse sigmoid units (Ng 2011).

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [0, 1] (`images.data`), or vectors.
    """
    units, sparsity = config.model.codes, config.sparsity
    model = MLPAutoencoder(tuple(data.shape), units, tuple(config.model.hidden), code_activation=nn.sigmoid)
    encode, decode = encode_with(model, laws.certain), decode_with(model, SQUARED_ERROR)
    code = coder(encode, bottlenecks.mean)
    penalty = penalties.sparsity(sparsity.rho, sparsity.weight, lambda params: params["statistics"]["activation"])
    return Autoencoding(
        data,
        init_of(model, data.shape, lambda key: {"statistics": {"activation": jnp.full(units, START)}}),
        code,
        decode,
        objectives.loss(code, decode, penalties={"sparsity": penalty}),
        looks={"filters": looks.filters(looks.first_layer, data.shape, data.view)},
        surveys=(surveys.mean_activation(encode),),
        optimizer=optimizers.by_part(statistics=optimizers.moving(sparsity.decay)),
    )


build = composed(method)
