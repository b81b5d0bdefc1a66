"""Building blocks of convolutional diffusion networks, as in Ho et al. 2020 (appendix B, official code).

Images are [batch, height, width, channels]. Parameters are float32. `dtype` is the type in which
convolutions, dense layers and attention products are computed, and that of what a layer returns; the
statistics of group normalisation and the softmax are float32 whatever it is.
"""

import functools
import math
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import on_channels
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Activation, Attend, Convolve, EncodeTime, OfImages, TellBlock
from diffusion_jax.models.ops import convolution, products
from diffusion_jax.models.ops.attention import by_xla, multi_head
from diffusion_jax.models.ops.convolution import SAME, Padding


class LayerContext(NamedTuple):
    """What every layer of a network is told beside its input.

    Attributes:
      embedding: float [B, E], of the time and of whatever else is one vector an example.
      tokens: float [B, L, D], a sequence to attend to, such as an encoded text; None where there is none.
      dropout_keys: None for evaluation, or one typed threefry key an example, [B] (`Dropout`).
      token_mask: bool [B, L], true where there is a token; None where there are only such.
    """

    embedding: jax.Array
    tokens: jax.Array | None = None
    dropout_keys: jax.Array | None = None
    token_mask: jax.Array | None = None


def scaled_init(scale: float) -> nn.initializers.Initializer:
    """Uniform with variance scale / mean(fan in, fan out): what every kernel of DDPM starts from."""

    def init(key, shape, dtype=jnp.float32):
        *window, fan_in, fan_out = shape
        limit = math.sqrt(3 * scale / (math.prod(window) * (fan_in + fan_out) / 2))
        return rng.flat(jax.random.uniform, key, shape, dtype, -limit, limit)

    return init


default_init = scaled_init(1.0)
# Last layer of each residual branch and of the network: the branch starts as (all but) nothing.
zero_init = scaled_init(1e-10)


class Convolution(nn.Module):
    """A convolution and a bias: [B, ..., C] -> [B, ..., features] of `dtype`.

    Parameters are those of `nn.Conv`. `convolve` is `(x, kernel) -> result`, from the modules `convolution` or
    `products`; its kernel is [*window, C, features].
    """

    features: int
    dtype: Any
    convolve: Convolve
    kernel_init: nn.initializers.Initializer
    window: tuple[int, ...] = (3, 3)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (*self.window, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        return self.convolve(x, kernel) + on_channels(bias, x)


def conv3x3(
    features: int,
    dtype: Any,
    name: str,
    convolve: Convolve = convolution.conv3x3,
    kernel_init: nn.initializers.Initializer = default_init,
) -> Convolution:
    """The one place where 3x3 convolutions are built: [B, H, W, C] -> [B, H', W', features], H and W by default."""
    return Convolution(features, dtype, convolve, kernel_init, name=name)


class Dense(nn.Dense):
    """A dense layer on the last axis, [..., C] -> [..., features]: `nn.Dense`, with all other axes as one inside.

    Of several axes XLA copies both sides of the kernel's gradient into another order on a CPU.
    """

    dot_general: Any = products.dot_general

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)


def dense(features: int, dtype: Any, name: str, kernel_init: nn.initializers.Initializer = default_init) -> Dense:
    """A dense layer on the last axis; on an image it is the 1x1 convolution ("network in network")."""
    return Dense(features, dtype=dtype, kernel_init=kernel_init, name=name)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018): [B, ..., C] -> the same shape, of `dtype`.

    The formula and the parameters are `nn.GroupNorm`'s. Means are taken over pixels first and then over the channels
    of a group: together they make XLA write x once more, in groups, and take twice the time on a CPU. Statistics are
    float32. The variance is the mean of (x - mean)^2: the faster E[x^2] - E[x]^2 cancels where the mean is large.

    Attributes:
      groups: a divisor of C.
      epsilon: added to the variance.
      dtype: of the result.
    """

    groups: int
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))

        def mean(values):  # of each group, for each of its channels: [B, ..., C] -> [B, 1, ..., C]
            each = values.mean(range(1, x.ndim - 1), keepdims=True)
            groups = each.reshape(*each.shape[:-1], self.groups, -1).mean(-1)
            return groups.repeat(channels // self.groups, axis=-1)

        x = x - mean(x)
        scale, bias = on_channels(scale, x), on_channels(bias, x)
        return (x * (jax.lax.rsqrt(mean(x**2) + self.epsilon) * scale) + bias).astype(self.dtype)


def group_norm(groups: int, dtype: Any, name: str, epsilon: float = 1e-6) -> GroupNorm:
    """Group normalisation of [B, ..., C], C a multiple of `groups`; statistics are float32, the result is `dtype`."""
    return GroupNorm(groups, epsilon, dtype, name=name)


def sinusoid(time: jax.Array, features: int) -> jax.Array:
    """Sinusoidal position embedding: [sin(t w_k), cos(t w_k)] with w_k = 10000^(-k / (features / 2 - 1)).

    Args:
      time: [B], integer or float, in steps: 0 to 999 for DDPM's published weights.
      features: even, at least 4.

    Returns:
      float32 [B, features], sines first.

    Raises:
      InputError: `features` is odd or below 4.

    Vaswani et al. 2017, section 3.5, with the frequencies of DDPM's official code.
    """
    angles = _angles(time, features, features // 2 - 1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def cosinusoid(time: jax.Array, features: int) -> jax.Array:
    """[cos(t w_k), sin(t w_k)] with w_k = 10000^(-k / (features / 2)): OpenAI's networks' and Stable Diffusion's.

    Arguments, result and errors as of `sinusoid`.
    """
    angles = _angles(time, features, features // 2)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _angles(time, features: int, last: int):
    if features < 4 or features % 2:
        raise InputError(f"a time embedding of {features} features: take an even number of at least 4")
    frequencies = jnp.exp(-math.log(10000.0) / last * jnp.arange(features // 2, dtype=jnp.float32))
    return time.astype(jnp.float32)[:, None] * frequencies[None]


def embedding_mlp(h: jax.Array, features: int, activation: Activation) -> jax.Array:
    """dense(activation(dense(h))), float32 [B, features], by layers "dense_0" and "dense_1" of the caller's scope."""
    h = dense(features, jnp.float32, "dense_0")(h)
    return dense(features, jnp.float32, "dense_1")(activation(h))


class TimeEmbedding(nn.Module):
    """Sinusoid -> dense -> swish -> dense: time [B] -> float32 [B, 4 * features].

    What else is to go through the dense layers, `beside` [B, features], is added to the sinusoid.
    Computed in float32: it is a few small products, and bfloat16 would blur neighbouring steps.

    Attributes:
      features: of the sinusoid, a quarter of the result's unless that has a `width` of its own.
      encode: `(time, features) -> [B, features]`: `sinusoid` or `cosinusoid`.
      activation: between the dense layers.
      width: of the result; None for 4 * features.
    """

    features: int
    encode: EncodeTime = sinusoid
    activation: Activation = nn.swish
    width: int | None = None

    @nn.compact
    def __call__(self, time: jax.Array, beside: jax.Array | float = 0.0) -> jax.Array:
        h = self.encode(time, self.features) + beside
        return embedding_mlp(h, self.width or 4 * self.features, self.activation)


class Dropout(nn.Module):
    """Dropout whose mask for an example depends on that example's key and this layer's path, on nothing else.

    So a result does not depend on the size of the batch, on the neighbours in it or on how many devices share
    it, and one key an example serves every layer of a network.

    Call with x [B, ...] and `keys`, an array [B] of typed threefry keys. Without keys (evaluation), or with
    rate 0, it returns x and draws nothing. Kept entries are divided by 1 - rate. The rate is rounded to 1 / 65536:
    16 random bits decide on an entry.

    Raises:
      InputError: the rate is outside [0, 1), or the keys are not threefry keys (under `vmap` the other
        generators of JAX draw for the whole batch from its first key).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        if not 0.0 <= self.rate < 1.0:
            raise InputError(f"dropout {self.rate}: give a rate in [0, 1)")
        if keys is None or self.rate == 0.0:
            return x
        keys = rng.typed(keys)
        layer = zlib.crc32("/".join(self.path).encode())
        kept = max(round((1 - self.rate) * 2**16), 1)  # of 2^16

        def mask(key):
            return rng.coins(jax.random.fold_in(key, layer), math.prod(x.shape[1:]), kept).reshape(x.shape[1:])

        return jnp.where(jax.vmap(mask)(keys), x / (kept / 2**16), jnp.zeros_like(x))


def strided(padding: Padding = SAME) -> Convolve:
    """What `conv3x3` convolves by for a stride of 2; `padding` is ((top, bottom), (left, right)), of zeros."""
    return functools.partial(convolution.conv3x3, stride=2, padding=padding)


def halved(x: jax.Array) -> jax.Array:
    """The mean of 2x2 pixels: [B, H, W, C] -> [B, H / 2, W / 2, C], H and W even."""
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


class Resampling(NamedTuple):
    """How a residual block changes the size of its images.

    Attributes:
      resample: [B, H, W, C] -> [B, H', W', C].
      convolve: `(x, kernel) -> convolution.conv3x3(resample(x), kernel)`, however it is computed.
    """

    resample: OfImages
    convolve: Convolve


KEPT = Resampling(lambda x: x, convolution.conv3x3)
HALVED = Resampling(halved, lambda x, kernel: convolution.conv3x3(halved(x), kernel))
ENLARGED = Resampling(convolution.enlarged, convolution.enlarged_conv3x3)


def by_time(h: jax.Array, context: LayerContext | None, activation: Activation, dtype: Any) -> jax.Array:
    """h [B, H, W, C] plus dense(activation(embedding)): how blocks of a diffusion network are told the time."""
    assert context is not None
    return h + dense(h.shape[-1], dtype, "time")(activation(context.embedding))[:, None, None, :]


def untold(h: jax.Array, context: LayerContext | None, activation: Activation, dtype: Any) -> jax.Array:
    """h: the residual blocks of an autoencoder are told nothing."""
    return h


class ResBlock(nn.Module):
    """Residual block: [B, H, W, C] -> [B, H', W', features] of `dtype`.

    GroupNorm, swish, resampling, 3x3; what it is told; GroupNorm, swish, dropout, 3x3 (starts at zero); plus the
    input, resampled, through a 1x1 where the number of channels changes. C and `features` are multiples of `groups`.
    `resampling` is `HALVED` or `ENLARGED` between levels, `activation` may stand for swish, `tell` is `by_time` or
    `untold`, and what is `projected` has the 1x1 in any case.
    """

    features: int
    dropout: float = 0.0
    groups: int = 32
    epsilon: float = 1e-6
    dtype: Any = jnp.float32
    resampling: Resampling = KEPT
    activation: Activation = nn.swish
    projected: bool = False
    tell: TellBlock = by_time

    @nn.compact
    def __call__(self, x: jax.Array, context: LayerContext | None = None) -> jax.Array:
        h = self.activation(group_norm(self.groups, self.dtype, "norm_0", self.epsilon)(x))
        h = conv3x3(self.features, self.dtype, "conv_0", self.resampling.convolve)(h)
        h = self.tell(h, context, self.activation, self.dtype)
        h = self.activation(group_norm(self.groups, self.dtype, "norm_1", self.epsilon)(h))
        h = Dropout(self.dropout, name="dropout")(h, context and context.dropout_keys)
        h = conv3x3(self.features, self.dtype, "conv_1", kernel_init=zero_init)(h)
        x = self.resampling.resample(x)
        if self.projected or x.shape[-1] != self.features:
            x = dense(self.features, self.dtype, "shortcut")(x)
        return x + h


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, with a residual: [B, H, W, C] -> [B, H, W, C] of `dtype`.

    x + out(softmax(q k^T / sqrt(C / heads)) v), with q, k, v dense layers of GroupNorm(x) and `out` a dense layer
    that starts at zero. C is a multiple of `groups` and of `heads`. `attend` is what attention is computed by
    (`attention.multi_head`).
    """

    heads: int = 1
    groups: int = 32
    epsilon: float = 1e-6
    dtype: Any = jnp.float32
    attend: Attend = by_xla

    @nn.compact
    def __call__(self, x: jax.Array, context: LayerContext | None = None) -> jax.Array:
        batch, height, width, channels = x.shape
        h = group_norm(self.groups, self.dtype, "norm", self.epsilon)(x)
        h = h.reshape(batch, height * width, channels)
        query, key, value = (dense(channels, self.dtype, name)(h) for name in ("query", "key", "value"))
        h = multi_head(query, key, value, self.heads, self.attend).reshape(x.shape)
        return x + dense(channels, self.dtype, "out", kernel_init=zero_init)(h)


class Downsample(nn.Module):
    """3x3 convolution of stride 2: [B, H, W, C] -> [B, H / 2, W / 2, C], H and W even.

    By default zeros are padded at the bottom and right only, as TensorFlow's SAME does for even sizes; PyTorch's
    networks pad all sides (`SAME`).
    """

    padding: tuple = ((0, 1), (0, 1))
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: LayerContext | None = None) -> jax.Array:
        return conv3x3(x.shape[-1], self.dtype, "conv", strided(self.padding))(x)


class Upsample(nn.Module):
    """Nearest neighbour x2, then a 3x3 convolution: [B, H, W, C] -> [B, 2 H, 2 W, C]."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: LayerContext | None = None) -> jax.Array:
        return conv3x3(x.shape[-1], self.dtype, "conv", convolution.enlarged_conv3x3)(x)
