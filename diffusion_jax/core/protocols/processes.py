"""What a process is made of: how data is destroyed, and how one step is undone."""

from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.values import Estimate, Kernel, Time, Tree


class Corrupt(Protocol):
    """`(key, x0, t) -> (x_t, noise)`, x_t ~ q(x_t | x0), of one example and a scalar t."""

    def __call__(self, key: jax.Array, x0: Tree, t: Time, /) -> tuple[Tree, Tree]: ...


class Bridge(Protocol):
    """`(estimate, x_t [B, ...]) -> kernel`, p(x_s | x_t); a pytree too, of its coefficients."""

    def __call__(self, estimate: Estimate, x_t: Tree, /) -> Kernel: ...


class Bridges(Protocol):
    """`(t, s) -> bridge` for s < t; of whole grids, t [N] and s [N], a bridge whose arrays lead with N."""

    def __call__(self, t: Time, s: Time, /) -> Bridge: ...


class Prior(Protocol):
    """`(key, shape, t=1.0) -> x_t`, one example of `shape` (or of a dictionary of shapes): where chains start."""

    def __call__(self, key: jax.Array, shape: Any, t: float = 1.0, /) -> Tree: ...


class LastPrior(Protocol):
    """`(key, shape) -> x_1`, one fully degraded example of `shape`: a prior that is known at t = 1 alone."""

    def __call__(self, key: jax.Array, shape: Any, /) -> Tree: ...


class Refresh(Protocol):
    """`(schedule, t, s) -> kappa`, the share of fresh noise in a step, in [0, 1], of the shape of t and s."""

    def __call__(self, schedule: Any, t: Time, s: Time, /) -> Any: ...


class Degrade(Protocol):
    """`D(x0 [...], t) -> [...]` of one example and a scalar t in [0, 1]; D(x0, 0) = x0."""

    def __call__(self, x0: jax.Array, t: Time, /) -> jax.Array: ...
