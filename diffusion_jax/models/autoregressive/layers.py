"""Layers that keep the order of tokens: convolutions of earlier pixels, and of earlier channels within a pixel.

Tokens [B, H, W, C] are read row by row, within a row from left to right, and within a pixel by channel (R, G, B). So
features are C groups, one after another: group g of a pixel knows all pixels before it, and of its own pixel the
tokens of fewer channels (van den Oord et al. 2016, "Pixel recurrent neural networks", section 3.4). Windows are
shifts and one product of matrices: XLA's convolutions are slow on CPUs inside a sampler's loop (`ops.products`).
"""

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion_jax.core.arrays import on_channels
from diffusion_jax.models.blocks.layers import Convolution, default_init, dense
from diffusion_jax.models.ops import products

Places: TypeAlias = tuple[tuple[int, int], ...]  # (rows, columns) from a pixel to those that it is told of


def rows_above(side: int) -> Places:
    """Of a square window of an odd `side`, the rows above its middle."""
    reach = side // 2
    return tuple((row, column) for row in range(-reach, 0) for column in range(-reach, reach + 1))


def own_row(side: int) -> Places:
    """Of that window, the whole row of its middle."""
    reach = side // 2
    return tuple((0, column) for column in range(-reach, reach + 1))


def to_the_left(side: int) -> Places:
    """Of that row, what comes before the middle."""
    return tuple((0, column) for column in range(-(side // 2), 0))


def shifted_down(x: jax.Array) -> jax.Array:
    """Each row of [B, H, W, C] one lower, the first of zeros."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def neighbours(features: int, places: Places, dtype: Any, name: str) -> Convolution:
    """A convolution of the pixels at `places`: [B, H, W, C] -> [B, H, W, features], with a bias."""
    convolve = partial(products.of_places, places=places)
    return Convolution(features, dtype, convolve, default_init, (len(places),), name=name)


class Grouped(nn.Module):
    """A dense layer of a pixel's own features, in which a group is told of no later one: [..., C] -> [..., features].

    Attributes:
      features: of the result, a multiple of `groups`, as C is.
      groups: channels of tokens.
      dtype: of the product and the result.
      strict: whether a group is not told of itself either (mask A, in place of B).
      kernel_init: of the kernel, [C, features].
    """

    features: int
    groups: int
    dtype: Any
    strict: bool = False
    kernel_init: nn.initializers.Initializer = default_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        told, heard = (np.arange(size) * self.groups // size for size in kernel.shape)
        earlier = told[:, None] < heard[None] + (not self.strict)
        kernel = jnp.where(earlier, kernel, jnp.zeros_like(kernel))
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        product = x.reshape(-1, x.shape[-1]) @ kernel
        return product.reshape(*x.shape[:-1], self.features) + on_channels(bias, x)


class TokenTable(nn.Module):
    """A learned vector for each token: int [B, H, W, C] -> [B, H, W, C * features] of `dtype`, a group a channel.

    The token `vocab` stands for one that is not known yet: zeros, as beyond the border. Others are NaN.
    """

    vocab: int
    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.vocab, self.features)
        table = self.param("embedding", nn.initializers.normal(1.0), shape, jnp.float32).astype(self.dtype)
        with_unknown = jnp.concatenate([table, jnp.zeros_like(table[:1])])
        # Negative tokens, which NumPy would count from the end, are beyond too.
        found = jnp.take(with_unknown, jnp.where(x < 0, self.vocab + 1, x), axis=0, mode="fill")
        return found.reshape(*x.shape[:3], -1)


class Told(NamedTuple):
    """What a network of tokens is told, ready for its layers.

    Attributes:
      vector: float [B, E], the sum of what `embed` makes of conditions; None where there are none.
      maps: float [B, H, W, D], conditions that have a value at each pixel, side by side; None where there are none.
      dropout_keys: None for evaluation, or one typed threefry key an example, [B].
    """

    vector: jax.Array | None
    maps: jax.Array | None
    dropout_keys: jax.Array | None


class Heard(nn.Module):
    """What a layer makes of what it is told, to be added before its gates: [B or 1, H or 1, W or 1, features]."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, told: Told) -> jax.Array:
        heard = jnp.zeros((1, 1, 1, self.features), self.dtype)
        if told.vector is not None:
            heard = heard + dense(self.features, self.dtype, "vector")(told.vector)[:, None, None, :]
        if told.maps is not None:
            heard = heard + dense(self.features, self.dtype, "maps")(told.maps)
        return heard


def halves(x: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """[..., 2 F] as two [..., F] that have the groups of x: the first half of each group, and the second."""
    parts = x.reshape(*x.shape[:-1], groups, 2, -1)
    return tuple(parts[..., half, :].reshape(*x.shape[:-1], -1) for half in (0, 1))  # type: ignore[return-value]


def gated(x: jax.Array, groups: int) -> jax.Array:
    """tanh(a) sigmoid(b) of the `halves` of [..., 2 F]: [..., F] (van den Oord et al. 2016b, equation 2)."""
    a, b = halves(x, groups)
    return jnp.tanh(a) * nn.sigmoid(b)
