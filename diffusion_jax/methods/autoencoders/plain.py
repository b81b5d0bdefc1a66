"""The plain autoencoder: what is lost is all that it is trained by."""

from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bottlenecks, laws, objectives
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.config.values import Config
from diffusion_jax.methods.autoencoders import images, looks, surveys
from diffusion_jax.methods.autoencoders.compose import Autoencoding, composed, decode_with, encode_with, init_of
from diffusion_jax.models.autoencoders.mlp import MLPAutoencoder
from diffusion_jax.training.experiment import Data

SQUARED_ERROR = laws.gaussian(0.5)  # its -log p is the sum of squares, but for a constant


def default_config() -> Config:
    """Values for the digits, with a code of 16 numbers."""
    return images.with_perceptron(images.config_digits(), codes=16)


def method(config: ConfigDict, data: Data) -> Autoencoding:
    """An autoencoder of `data` by squared error (Bourlard & Kamp 1988; with no hidden layers its codes span PCA's).

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [0, 1] (`images.data`), or vectors.
    """
    model = MLPAutoencoder(tuple(data.shape), config.model.codes, tuple(config.model.hidden))
    encode, decode = encode_with(model, laws.certain), decode_with(model, SQUARED_ERROR)
    code = coder(encode, bottlenecks.mean)
    return Autoencoding(
        data,
        init_of(model, data.shape),
        code,
        decode,
        objectives.loss(code, decode),
        looks={"filters": looks.filters(looks.first_layer, data.shape, data.view)},
        surveys=(surveys.active_units(encode),),
    )


build = composed(method)
