"""Optimisers, from the values of `config.train`: `train -> Optimizer`.

A method has one as a part (`methods.compose.Method.optimizer`); any other function of the kind will do.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import jax
import optax
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import OfStep


class Optimizer(NamedTuple):
    """What moves the parameters.

    Attributes:
      transformation: of optax.
      rates: name -> (`number of the update, from 0 -> rate`), for the log.
      observed: parts of the parameters, by their names in the tree's first level, that are statistics of the batch
        (`autoencoding.statistics`): what comes out as their gradient is none, and is left out of the logged norm.
    """

    transformation: optax.GradientTransformation
    rates: Mapping[str, OfStep] = MappingProxyType({})
    observed: Collection[str] = ()


ALL = ""  # in `observed`: everything that the optimiser moves, of one that moves a part
MakeOptimizer: TypeAlias = Callable[[ConfigDict], Optimizer]  # of `config.train`


def adam(train: ConfigDict) -> Optimizer:
    """Adam, with gradients clipped by their global norm and the rate of `rate` (DDPM's appendix B and its code).

    Zero `train.clip_norm` clips nothing. The optimiser's state has the same structure whatever the values, so that a
    fork may change them.
    """
    rates = rate(train)
    return _clipped(train, rates, optax.adam(rates, eps=1e-8))


def adam_of_betas(train: ConfigDict, times: float = 1.0) -> Optimizer:
    """`adam` whose averages of gradients and of their squares decay by `train.betas`; `times` the rate of `rate`."""
    usual = rate(train)

    def rates(step):
        return times * usual(step)

    return _clipped(train, rates, optax.adam(rates, *train.betas, eps=1e-8))


def with_betas(config: Config, usual: tuple[float, float] = (0.9, 0.999)) -> Config:
    """`config` with the decays that `adam_of_betas` and `adamw_of_betas` read."""
    config.train.betas = values.listed(
        usual, "decays of Adam's averages of gradients and of their squares", values.Real(0, 1, below=True), 2, 2
    )
    return config


def adamw(train: ConfigDict) -> Optimizer:
    """`adam`, with all parameters of two axes or more decaying by `train.weight_decay` times the rate in each update:
    weights do, biases and scales do not (Loshchilov & Hutter 2019)."""
    return _decaying(train)


def adamw_of_betas(train: ConfigDict) -> Optimizer:
    """`adamw` whose averages decay by `train.betas`, with `train.epsilon` beside the root of squares."""
    b1, b2 = train.betas
    return _decaying(train, b1, b2, train.epsilon)


def _decaying(train: ConfigDict, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    rates = rate(train)

    def weights(params):
        return jax.tree.map(lambda x: x.ndim > 1, params)

    return _clipped(train, rates, optax.adamw(rates, b1, b2, eps, weight_decay=train.weight_decay, mask=weights))


def falling(train: ConfigDict) -> Optimizer:
    """`adam` whose rate falls linearly to 0 at the last update, `train.steps` (progressive distillation's stages)."""
    rates = optax.linear_schedule(train.learning_rate, 0.0, train.steps)
    return _clipped(train, rates, optax.adam(rates, eps=1e-8))


def radam(train: ConfigDict) -> Optimizer:
    """Rectified Adam with the rate of `rate`, of consistency models (Liu et al. 2020)."""
    rates = rate(train)
    return _clipped(train, rates, optax.radam(rates))


def adafactor(train: ConfigDict) -> Optimizer:
    """Adafactor with the rate of `rate`, whatever the size of the weights (Shazeer & Stern 2018).

    Of second moments it keeps sums over rows and columns, next to nothing beside Adam's averages.
    """
    rates = rate(train)
    return _clipped(train, rates, optax.adafactor(rates, multiply_by_parameter_scale=False))


def _clipped(train: ConfigDict, rates: OfStep, rest: optax.GradientTransformation) -> Optimizer:
    """`rest`, whose rate is `rates`, of clipped gradients."""
    return Optimizer(optax.chain(clipping(train), rest), {"learning_rate": rates})


def with_weight_decay(config: Config, usual: float = 0.01) -> Config:
    """`config` with the decay of weights that `adamw` and `adamw_of_betas` read."""
    config.train.weight_decay = values.number(usual, "decay of weights, as a multiple of the rate", 0, 1e6)
    return config


def with_epsilon(config: Config, usual: float = 1e-8) -> Config:
    """`config` with the value beside the root of squares that `adamw_of_betas` reads."""
    config.train.epsilon = values.number(usual, "what Adam adds to the root of the average square", 1e-30, 1)
    return config


def by_part(rest: MakeOptimizer = adam, **parts: MakeOptimizer) -> MakeOptimizer:
    """`train -> Optimizer` in which parts of the parameters have optimisers of their own, and the others have `rest`.

    Each clips its own gradients. The rates of a part are logged under its name, "codebook_learning_rate".

    Args:
      rest: `train -> Optimizer`.
      **parts: name, in the tree's first level -> `train -> Optimizer`.
    """

    def make(train: ConfigDict) -> Optimizer:
        made = {name: part(train) for name, part in parts.items()}
        known = rest(train)
        rates = {f"{name}_{what}": law for name, part in made.items() for what, law in part.rates.items()}
        transformations = {name: part.transformation for name, part in made.items()} | {"": known.transformation}

        def groups(params):
            return {name: name if name in parts else "" for name in params}

        observed = (*known.observed, *(name for name, part in made.items() if ALL in part.observed))
        return Optimizer(optax.partition(transformations, groups), {**known.rates, **rates}, observed)

    return make


def rate(train: ConfigDict) -> optax.Schedule:
    """`number of the update -> rate`: a linear rise to `learning_rate` in `warmup_steps` updates, and half a cosine
    from there down to `final_rate` in `decay_steps`; zero of either is none."""
    full, end, rise, fall = train.learning_rate, train.final_rate, train.warmup_steps, train.decay_steps
    then = optax.cosine_decay_schedule(full, fall, end / full) if fall else optax.constant_schedule(full)
    if not rise:
        return then
    warmup = optax.linear_schedule(0.0, full, rise)
    return optax.join_schedules([warmup, then], [rise]) if fall else warmup


def clipping(train: ConfigDict) -> optax.GradientTransformation:
    """By the global norm `clip_norm`; zero is none."""
    return optax.clip_by_global_norm(train.clip_norm) if train.clip_norm else optax.identity()


def moving(decay: float) -> MakeOptimizer:
    """The moving average p <- decay p + (1 - decay) g of a part's gradients g: statistics of the batch (`by_part`).

    The gradients are means over the batch of what was observed (`autoencoding.statistics`). They are not clipped, and
    nothing of `config.train` matters to them.

    Args:
      decay: in [0, 1); 0 is the last batch's mean.

    Raises:
      InputError: for another decay.
    """
    if not 0 <= decay < 1:
        raise InputError(f"a moving average of decay {decay}; give a number from 0 to less than 1")

    def toward(observed, statistics):
        return jax.tree.map(lambda g, p: (1 - decay) * (g - p), observed, statistics)

    return lambda train: Optimizer(optax.stateless(toward), observed=(ALL,))
