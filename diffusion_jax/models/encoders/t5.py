"""T5's encoder of texts, versions 1.0 and 1.1 (Raffel et al. 2020; Shazeer 2020 for the gated perceptron)."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion_jax.core.arrays import on_channels
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Attend
from diffusion_jax.models.blocks.layers import Dense
from diffusion_jax.models.ops.attention import biased, hiding, multi_head


class RMSNorm(nn.Module):
    """scale x / sqrt(mean x^2 + epsilon), in float32 at least: [..., C] -> the same, of `dtype`."""

    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
        return (x * on_channels(scale, x)).astype(self.dtype)


class Perceptron(nn.Module):
    """Version 1.0's: dense(relu(dense(x))), without biases; [..., C] -> [..., C] of `dtype`."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.relu(_dense(self.hidden, x.shape[-1], self.dtype, "in")(x))
        return _dense(x.shape[-1], self.hidden, self.dtype, "out")(h)


class GatedPerceptron(nn.Module):
    """Version 1.1's: dense(gelu(gate(x)) dense(x)) with the tanh GELU; otherwise as `Perceptron`."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = nn.gelu(_dense(self.hidden, x.shape[-1], self.dtype, "gate")(x), approximate=True)
        h = gate * _dense(self.hidden, x.shape[-1], self.dtype, "in")(x)
        return _dense(x.shape[-1], self.hidden, self.dtype, "out")(h)


class Block(nn.Module):
    """Pre-norm attention and perceptron, each with a residual, without biases: [B, L, C] -> [B, L, C] of `dtype`.

    Attributes:
      heads: of attention.
      width: features of a head; heads * width need not be C.
      hidden: features inside the perceptron.
      perceptron: `(hidden, dtype, name=) -> module`.
      epsilon: of normalisation.
      dtype: of dense layers and attention products; normalisation and softmax are float32.
    """

    heads: int
    width: int
    hidden: int
    perceptron: Callable[..., nn.Module]
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, attend: Attend) -> jax.Array:
        features, inner = x.shape[-1], self.heads * self.width
        h = RMSNorm(self.epsilon, self.dtype, name="norm_0")(x)
        # Products are not divided by sqrt(width), so queries start smaller by as much.
        query = _dense(inner, features * self.width, self.dtype, "query")(h)
        key, value = (_dense(inner, features, self.dtype, name)(h) for name in ("key", "value"))
        x = x + _dense(features, inner, self.dtype, "out")(multi_head(query, key, value, self.heads, attend))
        h = RMSNorm(self.epsilon, self.dtype, name="norm_1")(x)
        return x + self.perceptron(self.hidden, self.dtype, name="mlp")(h)


class T5Encoder(nn.Module):
    """T5's encoder. The defaults are those of version 1.1 XXL, which Imagen and DeepFloyd IF are told by.

    Attributes:
      vocab: ids are 0 to vocab - 1. One beyond makes its example NaN.
      features: width D.
      width: of a head of attention.
      hidden: features inside the perceptrons.
      layers: blocks.
      heads: of attention.
      perceptron: `Perceptron` for version 1.0, `GatedPerceptron` for 1.1.
      buckets: of relative positions, a multiple of 4.
      farthest: tokens from which on distances are one bucket, more than buckets / 4.
      epsilon: of normalisation.
      dtype: of what is computed and returned, float32 or bfloat16: numbers inside overflow float16. Parameters may
        be of another type: each is converted when it is used.
    """

    vocab: int = 32128
    features: int = 4096
    width: int = 64
    hidden: int = 10240
    layers: int = 24
    heads: int = 64
    perceptron: Callable[..., nn.Module] = GatedPerceptron
    buckets: int = 32
    farthest: int = 128
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Rows [B, L, D] of texts, each of which knows all others that the mask shows.

        Args:
          ids: int [B, L].
          mask: bool [B, L], true where there is text; what is false no row reads. Rows at padding are numbers as
            large as others. None reads all.

        Raises:
          InputError: `dtype` is float16.
        """
        check_dtype(self.dtype)
        table = self.param("tokens", nn.initializers.normal(1.0), (self.vocab, self.features), jnp.float32)
        # Negative ids, which NumPy would count from the end, are beyond too.
        x = jnp.take(table, jnp.where(ids < 0, self.vocab, ids), axis=0, mode="fill").astype(self.dtype)
        init = nn.initializers.normal(self.features**-0.5)
        positions = self.param("positions", init, (self.buckets, self.heads), jnp.float32)
        places = buckets(ids.shape[1], self.buckets, self.farthest)
        bias = positions.astype(jnp.promote_types(self.dtype, jnp.float32))[places].transpose(2, 0, 1)[None]
        if mask is not None:
            bias = bias + hiding(mask[:, None, None, :])
        block = self.heads, self.width, self.hidden, self.perceptron, self.epsilon, self.dtype
        for i in range(self.layers):
            x = Block(*block, name=f"block_{i}")(x, biased(bias, scale=1.0))
        return RMSNorm(self.epsilon, self.dtype, name="norm")(x)


def buckets(length: int, count: int = 32, farthest: int = 128) -> np.ndarray:
    """The bucket of each key's place relative to each query's, int [queries, keys], for texts of `length` tokens.

    Half of the buckets are for keys after the query. Of each half, half are for one distance each, from 0; the others
    grow with the logarithm up to `farthest`, and the last has all that is beyond.
    """
    places = np.arange(length)
    after = places[None, :] - places[:, None]
    half = count // 2
    exact = half // 2
    distance = np.abs(after)
    spread = math.log(farthest / exact)
    logarithm = np.log(np.maximum(distance, exact) / exact) / spread
    far = np.minimum(exact + (logarithm * (half - exact)).astype(int), half - 1)
    return half * (after > 0) + np.where(distance < exact, distance, far)


def check_dtype(dtype: Any) -> None:
    """Raise `InputError` where T5 would be computed in float16."""
    if jnp.dtype(dtype) == jnp.dtype(jnp.float16):
        raise InputError("T5 computes in float32 or bfloat16: its numbers overflow float16; take bfloat16")


def _dense(features, fan_in, dtype, name):
    init = nn.initializers.normal(fan_in**-0.5)
    return Dense(features, use_bias=False, dtype=dtype, kernel_init=init, name=name)
