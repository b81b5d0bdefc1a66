"""The k-sparse autoencoder: a few units speak for each example, and the others are 0."""

from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bottlenecks, laws, objectives
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.methods.autoencoders import images, looks, surveys
from diffusion_jax.methods.autoencoders.compose import Autoencoding, composed, decode_with, encode_with, init_of
from diffusion_jax.methods.autoencoders.plain import SQUARED_ERROR
from diffusion_jax.models.autoencoders.mlp import identity
from diffusion_jax.models.autoencoders.tied import TiedAutoencoder
from diffusion_jax.training.experiment import Data


def default_config() -> Config:
    """Values for the digits: 3 of 100 units."""
    config = images.config_digits()
    config.model = Config(
        codes=values.count(100, "units", 16_384),
        k=values.count(3, "units that are kept of an example, at most all", 16_384),
    )
    return config


def method(config: ConfigDict, data: Data) -> Autoencoding:
    """A k-sparse autoencoder of linear units with tied weights, by squared error (Makhzani & Frey 2014, section 2.1).

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [0, 1] (`images.data`), or vectors.

    Raises:
      InputError: more units are to be kept than there are.
    """
    if config.model.k > config.model.codes:
        raise InputError(f"{config.model.k} of {config.model.codes} units cannot be kept; make model.k less")
    model = TiedAutoencoder(tuple(data.shape), config.model.codes, identity)
    encode, decode = encode_with(model, laws.certain), decode_with(model, SQUARED_ERROR)
    code = coder(encode, bottlenecks.top_k(config.model.k))
    return Autoencoding(
        data,
        init_of(model, data.shape),
        code,
        decode,
        objectives.loss(code, decode),
        looks={"filters": looks.filters(looks.only_layer, data.shape, data.view)},
        surveys=(surveys.units_in_use(code),),
    )


build = composed(method)
