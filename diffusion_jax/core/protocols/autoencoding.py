"""What autoencoders are made of (`diffusion_jax.autoencoding`)."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.values import Tree


class Encode(Protocol):
    """`(params, x [B, ...]) -> q(z | x)`, a distribution whose arrays lead with B (`core.distributions`)."""

    def __call__(self, params: Tree, x: Tree, /) -> Any: ...


class Decode(Protocol):
    """`(params, z [B, ...]) -> p(x | z)`, a distribution whose arrays lead with B."""

    def __call__(self, params: Tree, z: Tree, /) -> Any: ...


class DecodeLatents(Protocol):
    """`(params, z [B, ...]) -> x [B, ...]`."""

    def __call__(self, params: Tree, z: Tree, /) -> Tree: ...


class Compare(Protocol):
    """`(params, x [B, ...], numbers of a decoder [B, ...], context) -> (cost [B], what else is logged)`."""

    def __call__(
        self, params: Tree, x: jax.Array, numbers: jax.Array, context: Any, /
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]: ...


class CompareOf(Protocol):
    """`compare -> compare`, with more that is compared."""

    def __call__(self, compare: Compare, /) -> Compare: ...


class Distort(Protocol):
    """`(params, x [B, ...], z [B, ...], context) -> (cost [B], what else is logged)`: what it costs to decode z."""

    def __call__(self, params: Tree, x: Tree, z: Tree, context: Any, /) -> tuple[jax.Array, Mapping]: ...


class DistortOf(Protocol):
    """`(decode, compare) -> distort`, by what `compare` says of what is decoded."""

    def __call__(self, decode: DecodeLatents, compare: Compare, /) -> Distort: ...


class Discriminate(Protocol):
    """`(params, x [B, ...]) -> logits [B, ...]`, large for what is real."""

    def __call__(self, params: Tree, x: jax.Array, /) -> jax.Array: ...


class Lose(Protocol):
    """`(logits of what is real [B, ...], of what is made [B, ...]) -> [B]`, what a discriminator loses."""

    def __call__(self, real: jax.Array, made: jax.Array, /) -> jax.Array: ...


class ReadCode(Protocol):
    """`numbers of an encoder [B, ...] -> q(z | x)`."""

    def __call__(self, numbers: jax.Array, /) -> Any: ...


class ReadData(Protocol):
    """`(params, numbers of a decoder [B, ...]) -> p(x | z)`."""

    def __call__(self, params: Tree, numbers: jax.Array, /) -> Any: ...


class DrawCode(Protocol):
    """`key -> z`, the code of one example, from its prior."""

    def __call__(self, key: jax.Array, /) -> Tree: ...


class Bottleneck(Protocol):
    """`(params, keys [B], q) -> code`: what passes of q(z | x), and what it costs (`autoencoding.codes.Code`)."""

    def __call__(self, params: Tree, keys: jax.Array, q: Any, /) -> Any: ...


class Coder(Protocol):
    """`(params, keys [B], x [B, ...]) -> code`: an encoder and its bottleneck, or several on several levels."""

    def __call__(self, params: Tree, keys: jax.Array, x: Tree, /) -> Any: ...


class Rebuild(Protocol):
    """`(params, keys [B], x [B, ...]) -> [B, ...]`: what a model makes of its own code of x."""

    def __call__(self, params: Tree, keys: jax.Array, x: Tree, /) -> Tree: ...


class OfParams(Protocol):
    """`params -> [...]`: a part of the parameters, or what is computed of one: a codebook, a statistic, a kernel."""

    def __call__(self, params: Tree, /) -> jax.Array: ...


class Weigh(Protocol):
    """`(rate [B], params, context) -> [B]`: what a rate costs in training."""

    def __call__(self, rate: jax.Array, params: Tree, context: Any, /) -> jax.Array: ...


class Penalty(Protocol):
    """`(params, keys [B], x [B, ...], code, context) -> [B]`: what else training asks for."""

    def __call__(self, params: Tree, keys: jax.Array, x: Tree, code: Any, context: Any, /) -> jax.Array: ...


class Spoil(Protocol):
    """`(key, x [...]) -> [...]`: one example, as the encoder sees it in training."""

    def __call__(self, key: jax.Array, x: Tree, /) -> Tree: ...


class Summary(Protocol):
    """`arrays [N, ...] by name -> name -> number`, of a whole set (`training.experiment.Survey`); NumPy's."""

    def __call__(self, found: Mapping[str, Any], /) -> dict[str, float]: ...


class Teach(Protocol):
    """`(params, keys [B], z [B, ..., d], indices [B, ...], codes [K, d]) -> [B]`: a cost, or 0.

    Its gradient teaches a codebook the vectors that its codes stand for.
    """

    def __call__(
        self, params: Tree, keys: jax.Array, z: jax.Array, indices: jax.Array, codes: jax.Array, /
    ) -> jax.Array: ...


class Pass(Protocol):
    """`(z [B, ..., d], code of each position [B, ..., d]) -> [B, ..., d]`: the codes, with a gradient for z."""

    def __call__(self, z: jax.Array, codes: jax.Array, /) -> jax.Array: ...


class Decoded(Protocol):
    """`(params, kept [B, ...]) -> z [B, ...]`: what the decoder is given, of what was kept of a code or drawn."""

    def __call__(self, params: Tree, kept: Tree, /) -> Tree: ...
