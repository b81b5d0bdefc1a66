"""CLIP: a text and a picture in one space (Radford et al. 2021). It is trained here, and published weights are read.

A text encoder alone is cut out of it: `clip.text.apply({"params": params["text"]}, ids)`; likewise "vision".
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Activation
from diffusion_jax.models.blocks.layers import Dense
from diffusion_jax.models.encoders.transformer import Transformer, layer_norm, quick_gelu
from diffusion_jax.models.ops import products
from diffusion_jax.models.ops.attention import biased, by_xla, hiding


class Encoded(NamedTuple):
    """A text that is encoded.

    Attributes:
      states: the N + 1 states of N blocks, what the first block is given first; each [B, L, D], not normalised.
      normed: the same, each normalised as the last is; compiled, what is not read of them costs nothing.
      pooled: one row of `final`, projected where the network has a projection, [B, P].
    """

    states: tuple[jax.Array, ...]
    normed: tuple[jax.Array, ...]
    pooled: jax.Array

    @property
    def final(self) -> jax.Array:
        """The last state, normalised, [B, L, D]."""
        return self.normed[-1]


class Seen(NamedTuple):
    """A picture that is encoded. Row 0 of a state stands for the whole, the others for its patches in reading order.

    Attributes:
      states: the N + 1 states of N blocks, what the first block is given first; each [B, 1 + patches, D].
      pooled: the last state's row 0, normalised, [B, D].
      embedding: `pooled`, projected, [B, P]; None where the network has no projection.
    """

    states: tuple[jax.Array, ...]
    pooled: jax.Array
    embedding: jax.Array | None

    @property
    def last(self) -> jax.Array:
        """The last state, not normalised, [B, 1 + patches, D]."""
        return self.states[-1]


def at_largest(ids: jax.Array) -> jax.Array:
    """Where the largest id is first, int [B] of int [B, L]: the end of a text in CLIP's own vocabulary."""
    return ids.argmax(-1)


def at_first(end: int) -> Callable[[jax.Array], jax.Array]:
    """`ids [B, L] -> int [B]`: where the id `end` is first; 0 where it is not in the text."""
    return lambda ids: (ids == end).argmax(-1)


class TextTransformer(nn.Module):
    """CLIP's text encoder. The defaults are those of ViT-L/14, Stable Diffusion 1's.

    Attributes:
      vocab: ids are 0 to vocab - 1. One beyond makes its example NaN.
      positions: the longest text, in ids.
      features: width D, a multiple of `heads`.
      hidden: features inside the perceptrons.
      layers: blocks.
      heads: of attention.
      projection: features P of the pooled row; None for no projection, and P = D.
      activation: of the perceptrons (`transformer.quick_gelu`, `transformer.gelu`).
      pool: `ids [B, L] -> int [B]`, which row stands for the text (`at_largest`, `at_first`).
      epsilon: of normalisation.
      dtype: of what is computed and returned; statistics of normalisation and softmax are float32. Parameters may
        be of another type: each is converted when it is used.
    """

    vocab: int = 49408
    positions: int = 77
    features: int = 768
    hidden: int = 3072
    layers: int = 12
    heads: int = 12
    projection: int | None = None
    activation: Activation = quick_gelu
    pool: Callable[[jax.Array], jax.Array] = at_largest
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: jax.Array, mask: jax.Array | None = None) -> Encoded:
        """A text, each of whose rows knows those before it.

        Args:
          ids: int [B, L], L at most `positions`.
          mask: bool [B, L], true where there is text; what is false no other row reads. None reads all, as published
            models are used: rows after the end of the text are then read by those after them.

        Raises:
          InputError: the text is too long, or `heads` does not divide `features`.
        """
        length = ids.shape[1]
        if length > self.positions:
            raise InputError(f"a text of {length} tokens: this encoder reads at most {self.positions}; cut it")
        table = self.param("tokens", nn.initializers.normal(0.02), (self.vocab, self.features), jnp.float32)
        places = self.param("positions", nn.initializers.normal(0.01), (self.positions, self.features), jnp.float32)
        # Negative ids, which NumPy would count from the end, are beyond too.
        x = jnp.take(table, jnp.where(ids < 0, self.vocab, ids), axis=0, mode="fill").astype(self.dtype)
        seen = jnp.tril(jnp.ones((1, 1, length, length), bool))
        if mask is not None:
            seen = seen & mask[:, None, None, :]
        blocks = self.layers, self.hidden, self.heads, self.activation, self.epsilon, self.dtype
        x = x + places[None, :length].astype(self.dtype)
        states = Transformer(*blocks, name="transformer")(x, biased(hiding(seen)))
        norm = layer_norm(self.epsilon, self.dtype, "norm")
        normed = tuple(map(norm, states))
        pooled = jnp.take_along_axis(normed[-1], self.pool(ids)[:, None, None], axis=1)[:, 0]
        if self.projection is not None:
            pooled = _projection(self.projection, self.features, self.dtype)(pooled)
        return Encoded(states, normed, pooled)


class VisionTransformer(nn.Module):
    """CLIP's encoder of pictures, a ViT. The defaults are those of ViT-L/14.

    Attributes:
      grid: patches of a picture, high and wide.
      patch: pixels of a patch's side.
      features: width D, a multiple of `heads`.
      hidden: features inside the perceptrons.
      layers: blocks.
      heads: of attention.
      projection: features P of the embedding; None for no projection.
      activation, epsilon, dtype: as of `TextTransformer`.
    """

    grid: tuple[int, int] = (16, 16)
    patch: int = 14
    features: int = 1024
    hidden: int = 4096
    layers: int = 24
    heads: int = 16
    projection: int | None = None
    activation: Activation = quick_gelu
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> Seen:
        """Pictures, float [B, H, W, C], normalised (`images.normalised`), H and W of `grid` patches.

        Raises:
          InputError: pictures of another size, or `heads` does not divide `features`.
        """
        batch, height, width, channels = images.shape
        wanted = tuple(self.patch * count for count in self.grid)
        if (height, width) != wanted:
            raise InputError(
                f"a picture of {height}x{width} pixels: this encoder sees {wanted[0]}x{wanted[1]}; resize it"
            )
        normal = nn.initializers.normal(self.features**-0.5)
        window = (self.patch, self.patch, channels, self.features)
        kernel = self.param("patches", nn.initializers.lecun_normal(in_axis=(0, 1, 2)), window, jnp.float32)
        whole = self.param("whole", normal, (self.features,), jnp.float32)
        tokens = 1 + self.grid[0] * self.grid[1]
        places = self.param("positions", normal, (tokens, self.features), jnp.float32)
        x = products.of_patches(images.astype(self.dtype), kernel.astype(self.dtype))
        first = jnp.broadcast_to(whole.astype(self.dtype)[None, None], (batch, 1, self.features))
        x = jnp.concatenate([first, x.reshape(batch, -1, self.features)], axis=1) + places[None].astype(self.dtype)
        x = layer_norm(self.epsilon, self.dtype, "norm_in")(x)
        blocks = self.layers, self.hidden, self.heads, self.activation, self.epsilon, self.dtype
        states = Transformer(*blocks, name="transformer")(x, by_xla)
        pooled = layer_norm(self.epsilon, self.dtype, "norm")(states[-1][:, 0])
        if self.projection is None:
            return Seen(states, pooled, None)
        return Seen(states, pooled, _projection(self.projection, self.features, self.dtype)(pooled))


class CLIP(nn.Module):
    """Both encoders, and how alike a text and a picture are: logits are scaled cosines.

    Attributes:
      text, vision: the encoders, each with a projection to as many features.
      scale: from which the logits' scale is learned.
    """

    text: TextTransformer
    vision: VisionTransformer
    scale: float = 1 / 0.07

    @nn.compact
    def __call__(self, ids: jax.Array, images: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Logits [N, M] of N pictures and M texts, at least float32; errors as of the encoders.

        Args:
          ids: int [M, L].
          images: float [N, H, W, C], normalised.
          mask: bool [M, L], or None.

        Raises:
          InputError: the encoders project to different spaces, or a projection is missing.
        """
        log_scale = self.param("log_scale", nn.initializers.constant(math.log(self.scale)), (), jnp.float32)
        of_texts, of_images = self.text(ids, mask).pooled, self.vision(images).embedding
        if of_images is None or of_texts.shape[1] != of_images.shape[1]:
            raise InputError(
                f"CLIP projects texts to {self.text.projection} features and pictures to {self.vision.projection}; "
                "give both the same projection"
            )
        scale = jnp.exp(log_scale.astype(jnp.promote_types(log_scale.dtype, jnp.float32)))
        return scale * (unit(of_images) @ unit(of_texts).T)


def unit(x: jax.Array) -> jax.Array:
    """`x` [..., D], each row divided by its length, at least float32."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def _projection(features, width, dtype):
    init = nn.initializers.normal(width**-0.5)
    return Dense(features, use_bias=False, dtype=dtype, kernel_init=init, name="projection")
