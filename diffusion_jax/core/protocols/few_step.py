"""What samplers of few steps are taught by (`diffusion.few_step`). `context` is a `losses.Context`."""

from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.estimates import Apply, Denoiser
from diffusion_jax.core.protocols.losses import Loss
from diffusion_jax.core.protocols.values import Time, Tree


class MakeLoss(Protocol):
    """`(apply, parameterization, process) -> loss`, as `methods.compose.Method` takes it."""

    def __call__(self, apply: Apply, parameterization: Any, process: Any, /) -> Loss: ...


class Teacher(Protocol):
    """`(context, *cond) -> denoiser`, of a network that is held."""

    def __call__(self, context: Any, /, *cond: Any) -> Denoiser: ...


class Taught(Protocol):
    """`(x_t [B, ...], context, *cond) -> x0 [B, ...]`, what a student should say; constant."""

    def __call__(self, x_t: jax.Array, context: Any, /, *cond: Any) -> jax.Array: ...


class Points(Protocol):
    """`(process, keys [B], x0 [B, ...], context, *cond) -> (x_t, x_u)`, two points of one trajectory."""

    def __call__(
        self, process: Any, keys: jax.Array, x0: jax.Array, context: Any, /, *cond: Any
    ) -> tuple[jax.Array, jax.Array]: ...


class TargetParams(Protocol):
    """`(params, context) -> params`, of the network whose answer is the target."""

    def __call__(self, params: Tree, context: Any, /) -> Tree: ...


class Distance(Protocol):
    """`(x [B, ...], y [B, ...], context) -> [B]`, how far two estimates are apart."""

    def __call__(self, x: jax.Array, y: jax.Array, context: Any, /) -> jax.Array: ...


class Across(Protocol):
    """`(denoise, x_t [B, ...], pair) -> x_u [B, ...]`, a step of the ODE between a `few_step.pairs.Pair` of times."""

    def __call__(self, denoise: Denoiser, x_t: jax.Array, pair: Any, /) -> jax.Array: ...


class LawOfUpdate(Protocol):
    """`(k, u [b]) -> times, a tree of [b]`, after k updates, u in [0, 1)."""

    def __call__(self, updates: jax.Array, u: jax.Array, /) -> Tree: ...


class TimesOf(Protocol):
    """`what is drawn in place of times -> t [B]`, where a student is asked."""

    def __call__(self, drawn: Tree, /) -> Time: ...
