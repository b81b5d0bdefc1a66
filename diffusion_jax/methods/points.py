"""Points in the plane, where every part of a diffusion can be looked at: a small network learns a toy set."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Source
from diffusion_jax.data import views
from diffusion_jax.diffusion import (
    guidance,
    losses,
    parameterizations,
    processes,
    schedules,
    time_sampling,
)
from diffusion_jax.methods.compose import Data, Method, base_config, composed
from diffusion_jax.methods.continuous import chains
from diffusion_jax.models.mlp import MLP

LIMIT = 2.5  # of a coordinate, either way
BOUNDS = (guidance.clip(-LIMIT, LIMIT),)


def default_config() -> Config:
    """Values for ten thousand points: a minute on two CPU cores."""
    config = base_config()
    config.data.threads = 1
    config.model = Config(
        features=values.count(128, "features of each layer, an even number", 16_384, least=4),
        layers=values.count(4, "residual blocks", 256),
    )
    config.train.batch_size = 256
    config.train.steps = 10_000
    config.train.steps_per_call = 10  # 1.2 times as fast as one
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 200
    config.train.ema_decay = 0.999
    config.log.every = 500
    config.log.sample_every = 5000
    config.log.samples = 2000
    return config


def small_config() -> Config:
    """Values for teachers and students of few steps: a smaller network, and a third of the examples."""
    config = default_config()
    config.model.features = 64
    config.train.batch_size = 128
    config.train.steps = 6000
    return config


def data(source: Source) -> Data:
    """Points [2] of about unit variance, within `LIMIT`: `split -> source` of {"point": float32 [2], ...}."""
    return Data(
        source,
        example={"point": jax.ShapeDtypeStruct((2,), jnp.float32)},
        clean=lambda batch: batch["point"],
        shape=(2,),
        view=views.points(LIMIT),
    )


def network(config: ConfigDict, **fields: Any) -> MLP:
    """A perceptron with the values of `config.model`; `fields` are more of its fields."""
    return MLP(config.model.features, config.model.layers, **fields)


def method(config: ConfigDict, source: Source) -> Method:
    """Diffusion of points [2] of about unit variance, with VDM's cosine schedule and v.

    Args:
      config: values, as `default_config` names them.
      source: `split -> source` of {"point": float32 [2]}.
    """
    schedule = schedules.cosine()
    return Method(
        data(source),
        model=network(config),
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.v(schedule, parameterizations.thousandths),
        loss=losses.simple,
        times=time_sampling.stratified(time_sampling.uniform(first=1e-3)),
        chains=chains(schedule),
        preview="ddim",
    )


build = composed(method)
