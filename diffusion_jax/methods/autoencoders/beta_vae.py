"""beta-VAE and its relatives: a rate that is weighed, led to a capacity, or of which one part is weighed."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import laws, objectives, total_correlation
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.methods.autoencoders import vae
from diffusion_jax.methods.autoencoders.compose import Autoencoding, composed, encode_with, first
from diffusion_jax.training import optimizers
from diffusion_jax.training.experiment import Data


def default_config() -> Config:
    """Values for the digits, with a code of 10 numbers and a fixed variance.

    A variance that is learned would fall until the weighed rate pays: only the product of both matters.
    """
    config = vae.default_config()
    config.model.codes = 10
    config.decoder = Config(var=values.number(0.02, "variance of a pixel about the decoder's mean", 1e-9, 1e9))
    return config


def with_beta(config: Config, beta: float = 4.0) -> Config:
    """`config` with the values of `method`, or of `beta_tc` with references."""
    config.rate = Config(beta=values.number(beta, "weight of the rate; 1 is the evidence lower bound", 0, 1e9))
    return config


def method(config: ConfigDict, data: Data) -> Autoencoding:
    """beta-VAE (Higgins et al. 2017, equation 4); arguments as of `vae.method`."""
    return vae.method(config, data, laws.gaussian(config.decoder.var), objectives.beta(config.rate.beta))


build = composed(method)


# ---- A capacity.


def with_capacity(config: Config) -> Config:
    """`config` with the values of `capacity`.

    The rate is compared as of the last batch: behind a longer memory it swings. A large gamma makes it swing too, for
    only the sign of the distance counts; with 100 and a decay of 0.9 it ended at 0.7 nats.
    """
    config.rate = Config(
        most=values.number(12.0, "nats that the rate is led to", 1e-6, 1e9),
        steps=values.count(2000, "updates in which it rises from 0"),
        gamma=values.number(5.0, "weight of the distance from it, more than the error gains by a nat", 1e-9, 1e9),
        decay=values.share(0.0, "decay of the moving mean rate; 0 is the last batch's", below=True),
    )
    return config


def capacity(config: ConfigDict, data: Data) -> Autoencoding:
    """A beta-VAE whose rate follows a capacity (Burgess et al. 2018, equation 8); arguments as of `vae.method`."""
    base, rate = vae.method(config, data, laws.gaussian(config.decoder.var)), config.rate
    weigh = objectives.capacity(rate.most, rate.steps, rate.gamma, lambda params: params["statistics"]["rate"])
    return base._replace(
        init=lambda key: {**base.init(key), "statistics": {"rate": jnp.zeros(())}},
        loss=objectives.loss(base.code, base.decode, weigh),
        optimizer=optimizers.by_part(statistics=optimizers.moving(rate.decay)),
    )


build_capacity = composed(capacity)


# ---- The total correlation.


def with_references(config: Config) -> Config:
    """`config` with the values of `beta_tc`, beside those of `with_beta`."""
    config.references = Config(
        held=values.count(1024, "training examples that stand for all, at most all", 1_000_000),
        each=values.count(256, "of them that an update looks at", 65_536),
    )
    return config


def beta_tc(config: ConfigDict, data: Data) -> Autoencoding:
    """beta-TCVAE: the total correlation alone is weighed (Chen et al. 2018); arguments as of `vae.method`."""
    base, references = vae.method(config, data, laws.gaussian(config.decoder.var)), config.references
    encode = encode_with(vae.network(config, data), laws.normal)
    penalty = total_correlation.weighted(config.rate.beta, encode, references.each)

    def held():
        return total_correlation.hold(first(data, "train", references.held), len(data.source("train")))

    return base._replace(
        loss=objectives.loss(base.code, base.decode, penalties={"total_correlation": penalty}),
        held=held,
    )


build_beta_tc = composed(beta_tc)
