"""What networks are made of. Images are [B, H, W, C]."""

from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.values import Tree


class Network(Protocol):
    """What methods, training and sampling ask of a network, as Flax Linen's modules have it."""

    def init(self, key: jax.Array, x: Any, time: Any, /, *cond: Any) -> Any:
        """{"params": nested dictionary of arrays}, from a key and arrays of the shapes that it will see."""

    def apply(self, variables: Any, x: Any, time: Any, /, *cond: Any, dropout_keys: Any = None) -> Any:
        """What the network says of x [B, ...] at time [B]; `cond` is one dictionary, or left out."""


class InitParams(Protocol):
    """`(key, x, time, *cond) -> params`, of arrays of the shapes that the network will see."""

    def __call__(self, key: jax.Array, /, *shown: Any) -> Tree: ...


class Layer(Protocol):
    """`(h [B, H, W, C], context) -> [B, H', W', C']`, with `models.blocks.layers.LayerContext`."""

    def __call__(self, h: jax.Array, context: Any, /) -> jax.Array: ...


class MakeLayer(Protocol):
    """`(features, name) -> layer` to [B, H', W', features]."""

    def __call__(self, features: int, name: str, /) -> Layer: ...


class MakeAttention(Protocol):
    """`(level, features, name) -> layer` to [B, H, W, features]; the middle is the level after the last."""

    def __call__(self, level: int, features: int, name: str, /) -> Layer: ...


class TellBlock(Protocol):
    """`(h [B, H, W, C], context, activation, dtype) -> [B, H, W, C]`: what a residual block is told, put into h."""

    def __call__(self, h: jax.Array, context: Any, activation: "Activation", dtype: Any, /) -> jax.Array: ...


class OfImages(Protocol):
    """`[B, H, W, C] -> [B, H', W', C']`, without parameters: halving, enlarging, pooling."""

    def __call__(self, x: jax.Array, /) -> jax.Array: ...


class Activation(Protocol):
    """`h -> h`, of one shape."""

    def __call__(self, h: jax.Array, /) -> jax.Array: ...


class Convolve(Protocol):
    """`(x [B, ..., C], kernel [*window, C, features]) -> [B, ..., features]`."""

    def __call__(self, x: jax.Array, kernel: jax.Array, /) -> jax.Array: ...


class Initializer(Protocol):
    """`(key, shape, dtype) -> array`: what a parameter starts from."""

    def __call__(self, key: jax.Array, shape: Any, dtype: Any, /) -> jax.Array: ...


class Attend(Protocol):
    """`(query [B, N, heads, d], key [B, L, heads, d], value [B, L, heads, d]) -> [B, N, heads, d]`."""

    def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array, /) -> jax.Array: ...


class Heads(Protocol):
    """`features -> heads`: how many heads of attention a layer of so many features has."""

    def __call__(self, features: int, /) -> int: ...


class EncodeTime(Protocol):
    """`(time [B], features) -> [B, F]`; F is `features`, or what the encoding makes of it."""

    def __call__(self, time: jax.Array, features: int, /) -> jax.Array: ...


class Wrap(Protocol):
    """`module class -> module class`: `nn.remat`, or the identity."""

    def __call__(self, module: Any, /) -> Any: ...
