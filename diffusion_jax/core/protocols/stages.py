"""What pipelines are made of (`diffusion.stages`). `cond` is a dictionary of arrays, each with the batch first."""

from collections.abc import Mapping
from typing import Protocol

import jax

from diffusion_jax.core.protocols.values import Tree


class RunStage(Protocol):
    """`(params, keys [B], cond) -> {name: array [B, ...]}`: what a stage adds to what is told, or replaces."""

    def __call__(self, params: Tree, keys: jax.Array, cond: Mapping[str, Tree], /) -> Mapping[str, Tree]: ...


class OfCond(Protocol):
    """`cond -> {name: array [B, ...]}`, fixed mathematics between two networks."""

    def __call__(self, cond: Mapping[str, Tree], /) -> Mapping[str, Tree]: ...


class EncodeEntries(Protocol):
    """`(params, cond) -> {name: array [B, ...]}`, a network that draws nothing."""

    def __call__(self, params: Tree, cond: Mapping[str, Tree], /) -> Mapping[str, Tree]: ...


class Score(Protocol):
    """`cond -> score [B]`, by which the best of several draws is chosen: the largest."""

    def __call__(self, cond: Mapping[str, Tree], /) -> jax.Array: ...
