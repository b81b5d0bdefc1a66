"""What stages of a cascade are made of."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax


class Resize(Protocol):
    """`(x [B, h, w, C], (H, W)) -> [B, H, W, C]` (`core.resizing`)."""

    def __call__(self, x: jax.Array, shape: Sequence[int], /) -> jax.Array: ...


class Augment(Protocol):
    """`(keys [B], low [B, ...], level [B]) -> low [B, ...]`: a small image as the next stage is shown it."""

    def __call__(self, keys: jax.Array, low: jax.Array, level: jax.Array, /) -> jax.Array: ...


class Retell(Protocol):
    """`(keys [B], cond, level [B]) -> cond`: what is told, augmented at a level; names and shapes stay."""

    def __call__(self, keys: jax.Array, cond: Mapping[str, Any], level: jax.Array, /) -> Mapping[str, Any]: ...
