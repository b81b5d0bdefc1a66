"""What networks are trained by, and at which times."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.values import Time, Tree


class Criterion(Protocol):
    """`(output, x0, noise, x_t, t [B]) -> how wrong the output is, [B]` (`diffusion.losses`)."""

    def __call__(self, output: Tree, x0: Tree, noise: Tree, x_t: Tree, t: Time, /) -> Any: ...


class Loss(Protocol):
    """`(keys [B], params, data, context, *cond) -> (loss per example [B], what else is logged, name -> [B])`."""

    def __call__(self, keys: Any, params: Tree, data: Tree, context: Any, /, *cond: Any) -> tuple[Any, Mapping]: ...


class Integrand(Protocol):
    """`(keys [B], params, x0 [B, ...], t [B], *cond) -> [B]`: a loss that looks at the times alone, as theirs."""

    def __call__(self, keys: jax.Array, params: Tree, x0: Tree, t: Time, /, *cond: Any) -> jax.Array: ...


class Law(Protocol):
    """`u -> t`, the quantile function of times: u in [0, 1), t in (0, 1], element by element."""

    def __call__(self, u: jax.Array, /) -> jax.Array: ...


class InitMemory(Protocol):
    """`() -> memory`, a pytree of arrays: what is remembered of the losses before there are any."""

    def __call__(self) -> Tree: ...


class DrawTimes(Protocol):
    """`(memory, key, index [b], total) -> (t [b], weight [b])`, of the examples at `index` in a batch of `total`."""

    def __call__(
        self, memory: Tree, key: jax.Array, index: jax.Array, total: int, /
    ) -> tuple[jax.Array, jax.Array]: ...


class UpdateMemory(Protocol):
    """`(memory, t [B], losses [B]) -> memory`, after an update with the global batch."""

    def __call__(self, memory: Tree, t: jax.Array, losses: jax.Array, /) -> Tree: ...


class GatherBatch(Protocol):
    """`tree [b, ...] -> tree [B, ...]`: arrays of one device's examples as those of the global batch, in order."""

    def __call__(self, tree: Tree, /) -> Tree: ...
