"""The denoising autoencoder: it is shown what is spoilt, and asked for what was there."""

from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bottlenecks, corruptions, laws, objectives
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Spoil
from diffusion_jax.diffusion import processes, schedules
from diffusion_jax.methods.autoencoders import images, looks, surveys
from diffusion_jax.methods.autoencoders.compose import Autoencoding, composed, decode_with, encode_with, init_of
from diffusion_jax.methods.autoencoders.plain import SQUARED_ERROR
from diffusion_jax.models.autoencoders.mlp import MLPAutoencoder
from diffusion_jax.training.experiment import Data


def default_config() -> Config:
    """Values for the digits, with one layer each way and a code of 200 numbers, more than there are pixels."""
    config = images.with_perceptron(images.config_digits(), codes=200)
    config.model.hidden = ()
    return config


def with_noise(config: Config, sigma: float = 0.3) -> Config:
    """`config` with the values of `noise`."""
    config.noise = Config(sigma=values.number(sigma, "standard deviation of what is added to a pixel", 1e-6, 1e6))
    return config


def with_masks(config: Config, rate: float = 0.3) -> Config:
    """`config` with the values of `masks`."""
    config.masks = Config(rate=values.share(rate, "share of the pixels that are made 0", below=True))
    return config


def noise(config: ConfigDict) -> Spoil:
    """x + sigma n: the process of a variance-exploding schedule, at its last time."""
    return corruptions.at(processes.gaussian(schedules.edm(config.noise.sigma)).corrupt, 1.0)


def masks(config: ConfigDict) -> Spoil:
    """Pixels at random become 0, black."""
    return corruptions.masked(config.masks.rate)


def method(config: ConfigDict, data: Data, spoil: Spoil) -> Autoencoding:
    """A denoising autoencoder by squared error (Vincent et al. 2010, section 3).

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [0, 1] (`images.data`), or vectors.
      spoil: `(key, x0) -> x`, what the encoder is shown in training.
    """
    model = MLPAutoencoder(
        tuple(data.shape), config.model.codes, tuple(config.model.hidden), activation=nn.relu, code_activation=nn.relu
    )
    encode, decode = encode_with(model, laws.certain), decode_with(model, SQUARED_ERROR)
    code = coder(encode, bottlenecks.mean)
    return Autoencoding(
        data,
        init_of(model, data.shape),
        code,
        decode,
        objectives.loss(code, decode, spoil=spoil),
        looks={
            "reconstruct": looks.restored(spoil, code, decode, data.view),
            "filters": looks.filters(looks.first_layer, data.shape, data.view),
        },
        surveys=(surveys.restored(spoil, code, decode),),
    )


build = composed(method)
