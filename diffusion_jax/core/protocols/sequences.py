"""What models of sequences are made of (`diffusion_jax.autoencoding.sequential`).

A state z is a tuple of arrays [B, ...], its layers, the highest first. A law of states is layered: a function that
is given the layers above and returns the distribution of the next.
"""

from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.values import Tree


class Layered(Protocol):
    """`layers above -> distribution of the next layer`, whose arrays lead with B: a law of states."""

    def __call__(self, above: tuple[jax.Array, ...], /) -> Any: ...


class Summarize(Protocol):
    """`(params, x [B, T, ...]) -> b [B, T + 1, ...]`: entry t sees the first t entries of x alone."""

    def __call__(self, params: Tree, x: jax.Array, /) -> Tree: ...


class Believe(Protocol):
    """`(params, b [B, ...]) -> p_B(z | b)`, a `Layered`."""

    def __call__(self, params: Tree, b: Tree, /) -> Layered: ...


class Smooth(Protocol):
    """`(params, z2, b1, b2, jump int [B]) -> p_S(z1 | z2, b1, b2)`, a `Layered`; z2 is `jump` steps after z1."""

    def __call__(self, params: Tree, z2: tuple, b1: Tree, b2: Tree, jump: jax.Array, /) -> Layered: ...


class Move(Protocol):
    """`(params, z1, jump int [B]) -> p_T(z2 | z1)`, a `Layered`; z2 is `jump` steps after z1."""

    def __call__(self, params: Tree, z1: tuple, jump: jax.Array, /) -> Layered: ...


class Gap(Protocol):
    """`(p, q, z ~ p) -> [B]`: the mean over draws of z is KL(p || q), nats; p and q are `Layered`."""

    def __call__(self, p: Layered, q: Layered, z: tuple, /) -> jax.Array: ...


class DecodeState(Protocol):
    """`(params, z) -> p(x | z)`, a distribution whose arrays lead with B."""

    def __call__(self, params: Tree, z: tuple, /) -> Any: ...
