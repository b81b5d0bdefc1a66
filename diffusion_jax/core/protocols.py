"""The seams as types: what each function that a part takes is given, and what it gives back.

Arguments are by place. B is the batch; x is an array [B, ...], or a tree of such arrays.
"""

from collections.abc import Mapping
from typing import Any, Protocol


class OfTime(Protocol):
    """A function of time in [0, 1], of arrays of any shape, of NumPy or JAX: alpha, sigma, a width, a weight."""

    def __call__(self, t: Any, /) -> Any: ...


class Denoiser(Protocol):
    """`(x_t [B, ...], t) -> estimate of x0` (`core.distributions`); t is a scalar or [B]."""

    def __call__(self, x_t: Any, t: Any, /) -> Any: ...


class ConditionalDenoiser(Protocol):
    """A denoiser that is told something: `(x_t, t, *cond) -> estimate`; cond is one dictionary, or left out."""

    def __call__(self, x_t: Any, t: Any, /, *cond: Any) -> Any: ...


class Transform(Protocol):
    """`denoiser -> denoiser`: clipping, a variance, a classifier's push."""

    def __call__(self, denoise: Denoiser, /) -> Denoiser: ...


class Guide(Protocol):
    """`(conditional denoiser, *cond) -> denoiser` (`diffusion.guidance`)."""

    def __call__(self, denoise: ConditionalDenoiser, /, *cond: Any) -> Denoiser: ...


class Apply(Protocol):
    """A network: `(params, input [B, ...], time [B], *cond) -> output`; in training with `dropout_keys` [B] too."""

    def __call__(self, params: Any, /, *inputs: Any, **dropout_keys: Any) -> Any: ...


class Criterion(Protocol):
    """`(output, x0, noise, x_t, t [B]) -> how wrong the output is, [B]` (`diffusion.losses`)."""

    def __call__(self, output: Any, x0: Any, noise: Any, x_t: Any, t: Any, /) -> Any: ...


class Loss(Protocol):
    """`(keys [B], params, data, context, *cond) -> (loss per example [B], what else is logged, name -> [B])`."""

    def __call__(self, keys: Any, params: Any, data: Any, context: Any, /, *cond: Any) -> tuple[Any, Mapping]: ...


class Run(Protocol):
    """How a chain is walked: `(sampler, times [N + 1], denoise, x, keys [B]) -> x0` (`diffusion.samplers.solve`)."""

    def __call__(self, sampler: Any, times: Any, denoise: Denoiser, x: Any, keys: Any, /) -> Any: ...


class Report(Protocol):
    """Called on the host now and then while a chain runs, with the share that is done, in [0, 1]."""

    def __call__(self, share: float, /) -> Any: ...


class SampleFn(Protocol):
    """`(params, key or keys [B], *cond) -> samples [B, ...]`."""

    def __call__(self, params: Any, rng: Any, /, *cond: Any) -> Any: ...


class Source(Protocol):
    """`split -> random-access source` (`data.sources`) of "train" or "test"."""

    def __call__(self, split: str, /) -> Any: ...


class SampleCondition(Protocol):
    """`(num, name -> array that a person gave) -> () or (cond,)`: what `num` samples are told (`data.conditions`)."""

    def __call__(self, num: int, given: Mapping[str, Any], /) -> tuple: ...
