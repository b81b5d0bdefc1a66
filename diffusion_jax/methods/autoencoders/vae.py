"""The variational autoencoder (Kingma & Welling 2014): codes are drawn, and their rate is paid."""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bottlenecks, bounds, laws, objectives
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import ReadData, Weigh
from diffusion_jax.methods.autoencoders import images, looks, surveys
from diffusion_jax.methods.autoencoders.compose import Autoencoding, composed, decode_with, encode_with, init_of
from diffusion_jax.models.autoencoders.mlp import MLPAutoencoder
from diffusion_jax.training.experiment import Data

START = -2.0  # logarithm of the variance that a learned one starts from


def default_config() -> Config:
    """Values for the digits, with a code of 16 numbers."""
    return images.with_perceptron(images.config_digits(), codes=16)


def network(config: ConfigDict, data: Data) -> MLPAutoencoder:
    """The network of `method`, which says means and logarithms of variances of a code."""
    return MLPAutoencoder(tuple(data.shape), config.model.codes, tuple(config.model.hidden), says=2)


def method(
    config: ConfigDict, data: Data, read: ReadData | None = None, weigh: Weigh = objectives.ELBO
) -> Autoencoding:
    """A variational autoencoder of `data`.

    Args:
      config: values, as `default_config` names them.
      data: x0 as `read` has it: in [0, 1] (`images.data`), or 0 and 1 (`images.binarized`) for a Bernoulli law.
      read: what the decoder's numbers say (`autoencoding.laws`); None for a normal law of one learned variance.
      weigh: what the rate costs (`objectives.beta`); the loss is the evidence lower bound by default.
    """
    model = network(config, data)
    beside = (lambda key: {"noise": {"log_var": jnp.full((), START)}}) if read is None else None
    encode = encode_with(model, laws.normal)
    decode = decode_with(model, read or laws.learned_gaussian(lambda params: params["noise"]["log_var"]))
    code = coder(encode, bottlenecks.sampled)
    return Autoencoding(
        data,
        init_of(model, data.shape, beside),
        code,
        decode,
        objectives.loss(code, decode, weigh),
        prior=partial(jax.random.normal, shape=(config.model.codes,)),
        looks={
            "traverse": looks.traversal(encode, decode, data.view),
            "filters": looks.filters(looks.first_layer, data.shape, data.view),
        },
        surveys=(surveys.active_units(encode),),
        averaged={"iwae": partial(bounds.iwae, encode, decode)},
    )


build = composed(method)
