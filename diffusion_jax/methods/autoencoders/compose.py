"""How the parts of an autoencoder become an `Experiment`, whatever the data."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bounds
from diffusion_jax.autoencoding.codes import reconstructed
from diffusion_jax.autoencoding.latents import Halves
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import (
    AverageLikelihood,
    Coder,
    Decode,
    Decoded,
    DrawCode,
    Encode,
    Examples,
    Hold,
    InitFn,
    Loss,
    Network,
    ReadCode,
    ReadData,
    Tree,
    Whole,
)
from diffusion_jax.data import conditions
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.methods.autoencoders import looks, surveys
from diffusion_jax.methods.compose import direct, of_batch
from diffusion_jax.training.averages import named
from diffusion_jax.training.experiment import (
    Data,
    Experiment,
    Look,
    Measures,
    Optimization,
    SampleRequest,
    Sampling,
    Survey,
    Task,
)
from diffusion_jax.training.optimizers import MakeOptimizer, adam


class Tokens(NamedTuple):
    """What a discrete bottleneck keeps (`Code.kept`), for priors over it.

    Attributes:
      vocab: indices are from 0, below this.
      decoded: `(params, kept) -> z`, what the decoder is given.
    """

    vocab: int
    decoded: Decoded


class Autoencoding(NamedTuple):
    """The parts of an autoencoder on some data; a page's `method` gives one, and `_replace` changes a part.

    Attributes:
      data: the training data.
      init: `key -> params`: of the network ("encoder", "decoder") and of what lies beside it ("codebook").
      code: what is known of x after the bottleneck (`autoencoding.codes.coder`).
      decode: `(params, z) -> p(x | z)`.
      loss: `(keys, params, x0, context) -> (loss [B], info)` (`autoencoding.objectives.loss`).
      prior: `key -> z` of one example, for models that draw; None for those that only reconstruct.
      looks: ways to see it, beside reconstructions.
      surveys: what is measured of a whole set, beside errors of reconstruction.
      averaged: likelihoods that average over draws of the code (`Measures.averaged`).
      optimizer: `config.train -> Optimizer` (`training.optimizers`).
      held: arrays that are read once and never trained.
      tokens: of a bottleneck that keeps indices; None of others.
      halves: encoder and decoder as a first stage of latent diffusion; None where it cannot be one.
      whole: the parameters that samplers, looks and measures take (`Sampling.whole`).
    """

    data: Data
    init: InitFn
    code: Coder
    decode: Decode
    loss: Loss
    prior: DrawCode | None = None
    looks: Mapping[str, Look] = MappingProxyType({})
    surveys: tuple[Survey, ...] = ()
    averaged: Mapping[str, AverageLikelihood] = MappingProxyType({})
    optimizer: MakeOptimizer = adam
    held: Hold = dict
    tokens: Tokens | None = None
    halves: Halves | None = None
    whole: Whole = lambda params, hold: params


def compose(config: ConfigDict, method: Autoencoding) -> Experiment:
    """A method as an experiment; `config` has the sections of `methods.compose.base_config`.

    With a prior its sampler is "prior": a code is drawn, and decoded. Without one it is "reconstruct", which is told
    an image, by default those of the test split.
    """
    data, train = method.data, config.train

    def from_prior(params, keys):
        return method.decode(params, jax.vmap(method.prior)(rng.each(keys, 0))).mean  # type: ignore[misc]

    rebuild = reconstructed(method.code, method.decode)

    def told(params, keys, cond):
        return rebuild(params, keys, cond["x"])

    def elbo(steps):
        if steps is not None:
            raise InputError(f"--steps {steps}: elbo is one look at a code; leave it out")
        return bounds.elbo(method.code, method.decode)

    if method.prior is None:
        data = data._replace(sample_condition=conditions.arrays(lambda num: {"x": some(data, num)}, x=data.shape))
    samplers = {"reconstruct": direct(told)} if method.prior is None else {"prior": direct(from_prior)}
    draw = next(iter(samplers.values()))
    return Experiment(
        data,
        Task(method.init, of_batch(method.loss, method.data), time_sampling.none(), held=method.held),
        Optimization(method.optimizer(train), train.ema_decay, named(train.ema_decays, train.ema_profiles)),
        Sampling(
            samplers,
            lambda batch: draw(SampleRequest(batch)),
            looks={"reconstruct": looks.pairs(method.code, method.decode, data.view), **method.looks},
            whole=method.whole,
        ),
        Measures(
            {"elbo": elbo},
            averaged=method.averaged,
            survey=surveys.joined(surveys.errors(method.code, method.decode), *method.surveys),
        ),
        method,
    )


def composed(method: Callable[..., Autoencoding]) -> Callable[..., Experiment]:
    """`(config, ...) -> Experiment` of a page's `(config, ...) -> Autoencoding`."""

    def build(config: ConfigDict, *parts, **more) -> Experiment:
        return compose(config, method(config, *parts, **more))

    return build


def some(data: Data, num: int) -> np.ndarray:
    """x0 of the first examples, up to `num`: of the test split, or where there is none of those trained on."""
    try:
        return first(data, "test", num)
    except InputError:
        return first(data, "train", num)


def first(data: Data, split: str, num: int) -> np.ndarray:
    """x0 of the first examples of a split, up to `num`."""
    return np.asarray(data.clean(first_rows(data, data.source(split), num)))


def first_rows(data: Data, source: Examples, num: int) -> dict[str, np.ndarray]:
    """The batch of the first examples of a source of `data`, up to `num`, as `data.clean` takes it."""
    rows = [source[i] for i in range(min(num, len(source)))]
    return {name: np.stack([row[name] for row in rows]) for name in data.example}


def init_of(model: Network, shape: Any, beside: Callable[[jax.Array], Mapping[str, Any]] | None = None) -> InitFn:
    """`key -> params` of a network for x [B, *shape], and `beside(key)`, which lies beside its own parts."""

    def init(key):
        own, other = jax.random.split(key)
        params = model.init(own, jnp.zeros((1, *shape)))["params"]
        return params if beside is None else {**params, **beside(other)}

    return init


def encode_with(model: Network, read: ReadCode) -> Encode:
    """`(params, x) -> q(z | x)`: what a network's `encode` says, read as a law (`autoencoding.laws`)."""
    return lambda params, x: read(_call(model, params, x, "encode"))


def decode_with(model: Network, read: ReadData) -> Decode:
    """`(params, z) -> p(x | z)`: what a network's `decode` says, read as a law (`autoencoding.laws`)."""
    return lambda params, z: read(params, _call(model, params, z, "decode"))


def _call(model, params: Tree, x: Tree, method: str):
    return model.apply({"params": params}, x, method=method)
