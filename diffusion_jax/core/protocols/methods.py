"""What a method and the records of an experiment are made of, where no record of a layer above is in it."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.estimates import Apply
from diffusion_jax.core.protocols.likelihoods import LikelihoodFn
from diffusion_jax.core.protocols.samplers import SampleFn
from diffusion_jax.core.protocols.values import Time, Tree


class Clean(Protocol):
    """`batch -> x0 [B, ...]`: the data as a process takes it, of the arrays of a batch by name."""

    def __call__(self, batch: Any, /) -> Tree: ...


class Condition(Protocol):
    """`batch -> ()`, or `batch -> (cond,)`: the condition of each example, a dictionary of arrays [B, ...]."""

    def __call__(self, batch: Any, /) -> tuple: ...


class InitFn(Protocol):
    """`key -> params`, random ones; traceable."""

    def __call__(self, key: jax.Array, /) -> Tree: ...


class InitBeside(Protocol):
    """`(key, params of a network) -> parts` that lie beside them; traceable."""

    def __call__(self, key: jax.Array, params: Tree, /) -> dict[str, Tree]: ...


class Start(Protocol):
    """`params -> params`, what training starts from in place of random ones; may read files."""

    def __call__(self, params: Tree, /) -> Tree: ...


class Gather(Protocol):
    """`params -> params`, whole, of parameters that are spread over devices; traceable."""

    def __call__(self, params: Tree, /) -> Tree: ...


class Hold(Protocol):
    """`() -> nested dictionary of arrays` that a loss reads and nothing trains; may read files."""

    def __call__(self) -> Mapping[str, Any]: ...


class ReadWeights(Protocol):
    """`(dtype=float32) -> params` of a file: of that dtype, or of each array's own for None."""

    def __call__(self, dtype: Any = ..., /) -> Mapping[str, Any]: ...


class Whole(Protocol):
    """`(params, hold) -> params` of a sampler: those trained, and what it needs of the arrays that `hold()` gives."""

    def __call__(self, params: Tree, hold: Hold, /) -> Tree: ...


class OfStep(Protocol):
    """`step -> number`, of the updates made so far, from 0: a rate, the weight of an average; traceable."""

    def __call__(self, step: Any, /) -> Any: ...


class ClassLogProb(Protocol):
    """`(x_t [B, ...], t, label int [B]) -> log p(label | x_t) [B]` in nats; t is a scalar or [B]."""

    def __call__(self, x_t: jax.Array, t: Time, label: jax.Array, /) -> jax.Array: ...


class ClassifierFn(Protocol):
    """`(params, x_t [B, ...], t, label int [B]) -> log p(label | x_t) [B]` in nats; t is a scalar or [B]."""

    def __call__(self, params: Tree, x_t: jax.Array, t: Time, label: jax.Array, /) -> jax.Array: ...


class Preview(Protocol):
    """`batch -> sample_fn` of `batch` examples: a quick look during training."""

    def __call__(self, batch: int, /) -> SampleFn: ...


class MakeLikelihood(Protocol):
    """`steps -> likelihood_fn`; None for the usual number of steps."""

    def __call__(self, steps: int | None, /) -> LikelihoodFn: ...


class SolveLikelihood(Protocol):
    """`tolerance -> likelihood_fn`, the tolerance of its solver in nats an entry."""

    def __call__(self, tolerance: float, /) -> LikelihoodFn: ...


class AverageLikelihood(Protocol):
    """`draws -> likelihood_fn`, draws of the code for each example."""

    def __call__(self, draws: int, /) -> LikelihoodFn: ...


class LikelihoodOf(Protocol):
    """`(apply, parameterization, steps) -> likelihood_fn` of any network; None for the usual number of steps."""

    def __call__(self, apply: Apply, parameterization: Any, steps: int | None, /) -> LikelihoodFn: ...


class SolvedOf(Protocol):
    """`(apply, parameterization, tolerance) -> likelihood_fn` of any network (`SolveLikelihood`)."""

    def __call__(self, apply: Apply, parameterization: Any, tolerance: float, /) -> LikelihoodFn: ...
