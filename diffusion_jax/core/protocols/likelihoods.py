"""What likelihoods are made of."""

from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.values import Estimate, Kernel, Tree


class LikelihoodFn(Protocol):
    """`(params, keys [B], x0 [B, ...], *cond)` -> a NamedTuple of arrays that lead with B.

    A bound has `total` [B], bits an entry; a density has `log_prob` [B], nats (`diffusion.likelihood`).
    """

    def __call__(self, params: Tree, keys: jax.Array, x0: Tree, /, *cond: Any) -> Any: ...


class Decoder(Protocol):
    """`(kernel, x0 [B, ...]) -> nats of each entry [B, ...]`: -log p(x0) under the last kernel of a chain."""

    def __call__(self, kernel: Kernel, x0: jax.Array, /) -> jax.Array: ...


class PriorTerm(Protocol):
    """`x0 int [B, ...] -> nats of each token [B, ...]`: what the prior costs a bound."""

    def __call__(self, x0: jax.Array, /) -> jax.Array: ...


class Cost(Protocol):
    """`(plan, estimate, x_t [B, ...], last) -> pytree of [B]`: what is summed at a step; `last` if it is to s = 0."""

    def __call__(self, plan: Tree, estimate: Estimate, x_t: Tree, last: Any, /) -> Tree: ...


class Trace(Protocol):
    """`(keys [B], x [B, ...]) -> likelihood.Directions`, along which a Jacobian's trace is taken."""

    def __call__(self, keys: jax.Array, x: jax.Array, /) -> Any: ...


class Slopes(Protocol):
    """`(z, t, scale, pull, along [P, B, ...]) -> (dz / dl [B, ...], e' (dD / dz) e [B, P])`; scalars, or [B]."""

    def __call__(
        self, z: jax.Array, t: Any, scale: Any, pull: Any, along: jax.Array, /
    ) -> tuple[jax.Array, jax.Array]: ...


class Dequantize(Protocol):
    """`(keys [B], levels int [B, ...]) -> (u [B, ...] in (0, 1), log q(u | levels) [B] in nats)`."""

    def __call__(self, keys: jax.Array, images: jax.Array, /) -> tuple[jax.Array, jax.Array]: ...


class Lift(Protocol):
    """`(keys [B], levels int [B, ...]) -> (x [B, ...], log q [B] in nats)`: real numbers drawn in the bins."""

    def __call__(self, keys: jax.Array, images: jax.Array, /) -> tuple[jax.Array, jax.Array]: ...


class LogDensity(Protocol):
    """`(keys [B], x [B, ...]) -> log p(x) [B]` in nats, or a tree of such."""

    def __call__(self, keys: jax.Array, x: jax.Array, /) -> Tree: ...
