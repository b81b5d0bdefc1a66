"""Denoisers, what stands between them and a network, and what is done to them."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.values import Estimate, Time, Tree


class OfTime(Protocol):
    """A function of time in [0, 1], of arrays of any shape, of NumPy or JAX: alpha, sigma, a width, a weight."""

    def __call__(self, t: Time, /) -> Any: ...


class OfLevel(Protocol):
    """`noise level -> the network's time`, of arrays of any shape."""

    def __call__(self, level: jax.Array, /) -> jax.Array: ...


class Apply(Protocol):
    """A network: `(params, input [B, ...], time [B], *cond) -> output`; in training with `dropout_keys` [B] too."""

    def __call__(self, params: Tree, /, *inputs: Any, **dropout_keys: Any) -> Any: ...


class Scale(Protocol):
    """`(x_t [B, ...], t) -> (input, time)`: what a network is given, the time in its own unit."""

    def __call__(self, x_t: Tree, t: Time, /) -> tuple[Tree, Any]: ...


class Read(Protocol):
    """`(output, x_t [B, ...], t) -> estimate`: what a network's output says of x0."""

    def __call__(self, output: Tree, x_t: Tree, t: Time, /) -> Estimate: ...


class Target(Protocol):
    """`(x0 [B, ...], noise, t [B]) -> array`: what a network should have said."""

    def __call__(self, x0: Tree, noise: Tree, t: Time, /) -> Tree: ...


class Check(Protocol):
    """`(t [N]) -> None`, or `InputError` where a network's output says nothing of x0; t is NumPy's."""

    def __call__(self, t: Time, /) -> None: ...


class Denoiser(Protocol):
    """`(x_t [B, ...], t) -> estimate of x0` (`core.distributions`); t is a scalar or [B]."""

    def __call__(self, x_t: Tree, t: Time, /) -> Estimate: ...


class ConditionalDenoiser(Protocol):
    """A denoiser that is told something: `(x_t, t, *cond) -> estimate`; cond is one dictionary, or left out."""

    def __call__(self, x_t: Tree, t: Time, /, *cond: Any) -> Estimate: ...


class DenoiserOf(Protocol):
    """`(params, *cond) -> denoiser`: parameters and condition are closed over."""

    def __call__(self, params: Tree, /, *cond: Any) -> Denoiser: ...


class Transform(Protocol):
    """`denoiser -> denoiser`: clipping, a variance, a classifier's push."""

    def __call__(self, denoise: Denoiser, /) -> Denoiser: ...


class Guide(Protocol):
    """`(conditional denoiser, *cond) -> denoiser` (`diffusion.guidance`)."""

    def __call__(self, denoise: ConditionalDenoiser, /, *cond: Any) -> Denoiser: ...


class Null(Protocol):
    """`cond -> cond`, the condition that stands for none: entries broadcast to those of `cond`."""

    def __call__(self, cond: Mapping[str, Any], /) -> Mapping[str, Any]: ...


class Rescale(Protocol):
    """`(guided, conditional, x_t, t) -> estimate`: what is done to a guided estimate, beside the conditional one."""

    def __call__(self, guided: Estimate, conditional: Estimate, x_t: Tree, t: Time, /) -> Estimate: ...


class MakeRescale(Protocol):
    """`phi -> Rescale`, phi in [0, 1]: how much of the size of a guided prediction is set right."""

    def __call__(self, phi: float, /) -> Rescale: ...


class Converted(Protocol):
    """`(prediction, x_t, t) -> prediction`: x0 as eps or v, or back; all are arrays [B, ...]."""

    def __call__(self, prediction: jax.Array, x_t: jax.Array, t: Time, /) -> jax.Array: ...


class LogProb(Protocol):
    """`(x_t [B, ...], t) -> log p(y | x_t) [B]` in nats, y inside; t is a scalar or [B]."""

    def __call__(self, x_t: jax.Array, t: Time, /) -> jax.Array: ...


class Gradient(Protocol):
    """`(x_t [B, ...], t) -> [B, ...]`: each example's gradient of a `LogProb`."""

    def __call__(self, x_t: jax.Array, t: Time, /) -> jax.Array: ...
