"""What a sampler is made of, and how it is run."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from diffusion_jax.core.protocols.estimates import Denoiser
from diffusion_jax.core.protocols.values import Kernel, Tree


class Plan(Protocol):
    """`(t [N], s [N]) -> plan`, a pytree whose arrays lead with N, in float64: what steps know of their intervals."""

    def __call__(self, t: np.ndarray, s: np.ndarray, /) -> Tree: ...


class Init(Protocol):
    """`x [B, ...] -> state`, before the first step."""

    def __call__(self, x: Tree, /) -> Tree: ...


class Step(Protocol):
    """`(keys [B], state, plan, denoise) -> state`, with the plan's slice for this step."""

    def __call__(self, keys: jax.Array, state: Tree, plan: Tree, denoise: Denoiser, /) -> Tree: ...


class Done(Protocol):
    """`state -> x [B, ...]`, the data in a state."""

    def __call__(self, state: Tree, /) -> Tree: ...


class Stuck(Protocol):
    """`state -> bool`, [B] or one for all: whose chain the sampler gave up."""

    def __call__(self, state: Tree, /) -> Any: ...


class Put(Protocol):
    """`(state, x [B, ...]) -> state`, with x as its data."""

    def __call__(self, state: Any, x: Tree, /) -> Any: ...


class Body(Protocol):
    """`(state, (number, plan)) -> (state, None)`: one step as `lax.scan` takes it, numbers from 1."""

    def __call__(self, state: Tree, step: tuple[Any, Tree], /) -> tuple[Tree, None]: ...


class End(Protocol):
    """`(kernel, keys [B]) -> x [B, ...]`: how a chain ends, on the mean of its last kernel or on a draw."""

    def __call__(self, kernel: Kernel, keys: jax.Array, /) -> Tree: ...


class Orders(Protocol):
    """`N -> orders, int [N]`, of the N steps of a chain."""

    def __call__(self, steps: int, /) -> np.ndarray: ...


class Grid(Protocol):
    """`steps -> times`, float64 [steps + 1], falling (`diffusion.timesteps`)."""

    def __call__(self, steps: int, /) -> np.ndarray: ...


class GridOfIndices(Protocol):
    """`indices -> times`, float64 [steps + 1]: the grid at entries of a table, falling (`timesteps.listed`)."""

    def __call__(self, indices: Sequence[int], /) -> np.ndarray: ...


class Run(Protocol):
    """How a chain is walked: `(sampler, times [N + 1], denoise, x, keys [B]) -> x0` (`diffusion.samplers.solve`)."""

    def __call__(self, sampler: Any, times: Any, denoise: Denoiser, x: Tree, keys: jax.Array, /) -> Any: ...


class Report(Protocol):
    """Called on the host now and then while a chain runs, with the share that is done, in [0, 1]."""

    def __call__(self, share: float, /) -> Any: ...


class SampleFn(Protocol):
    """`(params, key or keys [B], *cond) -> samples [B, ...]`."""

    def __call__(self, params: Tree, rng: jax.Array, /, *cond: Any) -> Tree: ...


class EditFn(Protocol):
    """`(params, key or keys [B], x0 [B, ...], *cond) -> samples [B, ...]` that begin at x0."""

    def __call__(self, params: Tree, rng: jax.Array, x0: Tree, /, *cond: Any) -> Tree: ...
