"""The contractive autoencoder: a code changes little where an example does."""

from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bottlenecks, laws, objectives, penalties
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.methods.autoencoders import images, looks, surveys
from diffusion_jax.methods.autoencoders.compose import Autoencoding, composed, decode_with, encode_with, init_of
from diffusion_jax.methods.autoencoders.plain import SQUARED_ERROR
from diffusion_jax.models.autoencoders.tied import TiedAutoencoder
from diffusion_jax.training.experiment import Data


def default_config() -> Config:
    """Values for the digits, with 100 units."""
    config = images.config_digits()
    config.model = Config(codes=values.count(100, "units", 16_384))
    config.contraction = Config(
        weight=values.number(0.1, "of the Jacobian's squared norm, beside a summed squared error", 0, 1e9)
    )
    return config


def method(config: ConfigDict, data: Data) -> Autoencoding:
    """A contractive autoencoder of sigmoid units with tied weights, by squared error (Rifai et al. 2011).

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [0, 1] (`images.data`), or vectors.
    """
    model = TiedAutoencoder(tuple(data.shape), config.model.codes, nn.sigmoid)
    encode, decode = encode_with(model, laws.certain), decode_with(model, SQUARED_ERROR)
    code = coder(encode, bottlenecks.mean)
    penalty = penalties.sigmoid_contraction(config.contraction.weight, looks.only_layer)
    norm = penalties.sigmoid_contraction(1.0, looks.only_layer)
    return Autoencoding(
        data,
        init_of(model, data.shape),
        code,
        decode,
        objectives.loss(code, decode, penalties={"contraction": penalty}),
        looks={"filters": looks.filters(looks.only_layer, data.shape, data.view)},
        surveys=(
            surveys.penalty(
                "squared norm of the Jacobian",
                lambda params, keys, x: norm(params, keys, x, code(params, keys, x), None),
            ),
        ),
    )


build = composed(method)
