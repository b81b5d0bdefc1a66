"""The network of the FID: Inception v3 of 2015-12-05, as TensorFlow ran it (Szegedy et al. 2015).

It differs from what later became Inception v3 in torchvision: averages leave out the padding, the last block takes a
maximum where the paper takes an average, and there are 1008 classes. Parts have the names of the published weights.

Products are float32 on every device, for GPUs and TPUs by default round their factors to about three digits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion_jax.core.protocols import OfImages

CLASSES = 1008
SPATIAL_CHANNELS = 7
PRECISE = jax.lax.Precision.HIGHEST


def resized(x: jax.Array, side: int) -> jax.Array:
    """Bilinear, as TensorFlow 1 does it: pixel i of the result is at i * (size / side), between whole pixels.

    There is no shift by half a pixel and no antialiasing, and beyond the last pixel it repeats.

    Args:
      x: [B, H, W, C].
      side: height and width of the result.

    Returns:
      float32 [B, side, side, C]; x itself where it has that size.
    """
    x = x.astype(jnp.float32)
    for axis in (2, 1):
        size = x.shape[axis]
        place = np.arange(side, dtype=np.float32) * (np.float32(size) / np.float32(side))
        lower = np.minimum(place.astype(int), size - 1)
        weight = (place - lower).reshape([-1 if i == axis else 1 for i in range(4)])
        low, high = (jnp.take(x, i, axis) for i in (lower, np.minimum(lower + 1, size - 1)))
        x = low + (high - low) * weight
    return x


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation by stored statistics, ReLU."""

    features: int
    window: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(
            self.features,
            self.window,
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            precision=PRECISE,
            name="conv",
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


def average(x: jax.Array) -> jax.Array:
    """The mean of the 3x3 pixels about each, of those that there are."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def maximum(x: jax.Array) -> jax.Array:
    """The maximum of the 3x3 pixels about each."""
    return nn.max_pool(x, (3, 3), padding="SAME")


def halved(x: jax.Array) -> jax.Array:
    """The maximum of 3x3 pixels, about every other one that has all its neighbours."""
    return nn.max_pool(x, (3, 3), strides=(2, 2))


class BlockA(nn.Module):
    """mixed to mixed_2: [B, H, W, C] -> [B, H, W, 224 + pooled]."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        a = ConvNorm(64, (1, 1), name="branch1x1")(x)
        b = ConvNorm(48, (1, 1), name="branch5x5_1")(x)
        b = ConvNorm(64, (5, 5), name="branch5x5_2")(b)
        c = ConvNorm(64, (1, 1), name="branch3x3dbl_1")(x)
        c = ConvNorm(96, (3, 3), name="branch3x3dbl_2")(c)
        c = ConvNorm(96, (3, 3), name="branch3x3dbl_3")(c)
        d = ConvNorm(self.pooled, (1, 1), name="branch_pool")(average(x))
        return jnp.concatenate([a, b, c, d], axis=-1)


class BlockB(nn.Module):
    """mixed_3, which halves: [B, H, W, C] -> [B, (H - 1) // 2, (W - 1) // 2, 480 + C]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        a = ConvNorm(384, (3, 3), 2, "VALID", name="branch3x3")(x)
        b = ConvNorm(64, (1, 1), name="branch3x3dbl_1")(x)
        b = ConvNorm(96, (3, 3), name="branch3x3dbl_2")(b)
        b = ConvNorm(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(b)
        return jnp.concatenate([a, b, halved(x)], axis=-1)


class BlockC(nn.Module):
    """mixed_4 to mixed_7, with windows of 7 pixels in a line: [B, H, W, C] -> [B, H, W, 768]."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        a = ConvNorm(192, (1, 1), name="branch1x1")(x)
        b = ConvNorm(self.inner, (1, 1), name="branch7x7_1")(x)
        b = ConvNorm(self.inner, (1, 7), name="branch7x7_2")(b)
        b = ConvNorm(192, (7, 1), name="branch7x7_3")(b)
        c = ConvNorm(self.inner, (1, 1), name="branch7x7dbl_1")(x)
        c = ConvNorm(self.inner, (7, 1), name="branch7x7dbl_2")(c)
        c = ConvNorm(self.inner, (1, 7), name="branch7x7dbl_3")(c)
        c = ConvNorm(self.inner, (7, 1), name="branch7x7dbl_4")(c)
        c = ConvNorm(192, (1, 7), name="branch7x7dbl_5")(c)
        d = ConvNorm(192, (1, 1), name="branch_pool")(average(x))
        return jnp.concatenate([a, b, c, d], axis=-1)


class BlockD(nn.Module):
    """mixed_8, which halves: [B, H, W, C] -> [B, (H - 1) // 2, (W - 1) // 2, 512 + C]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        a = ConvNorm(192, (1, 1), name="branch3x3_1")(x)
        a = ConvNorm(320, (3, 3), 2, "VALID", name="branch3x3_2")(a)
        b = ConvNorm(192, (1, 1), name="branch7x7x3_1")(x)
        b = ConvNorm(192, (1, 7), name="branch7x7x3_2")(b)
        b = ConvNorm(192, (7, 1), name="branch7x7x3_3")(b)
        b = ConvNorm(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(b)
        return jnp.concatenate([a, b, halved(x)], axis=-1)


class BlockE(nn.Module):
    """mixed_9 and mixed_10: [B, H, W, C] -> [B, H, W, 2048]. `pool` is what its last branch begins with."""

    pool: OfImages

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        a = ConvNorm(320, (1, 1), name="branch1x1")(x)
        b = ConvNorm(384, (1, 1), name="branch3x3_1")(x)
        c = ConvNorm(448, (1, 1), name="branch3x3dbl_1")(x)
        c = ConvNorm(384, (3, 3), name="branch3x3dbl_2")(c)
        split = [
            ConvNorm(384, window, name=f"{name}{side}")(h)
            for h, name in ((b, "branch3x3_2"), (c, "branch3x3dbl_3"))
            for side, window in (("a", (1, 3)), ("b", (3, 1)))
        ]
        d = ConvNorm(192, (1, 1), name="branch_pool")(self.pool(x))
        return jnp.concatenate([a, *split, d], axis=-1)


class Inception(nn.Module):
    """Call with images, float32 [B, H, W, 3] in [-1, 1], of 299 x 299 as in training (75 x 75 at least).

    Returns a dictionary of float32 arrays:
      "features" [B, 2048]: the last block, averaged over pixels ("pool_3").
      "logits" [B, 1008]: of the classes, without their bias.
      "spatial" [B, h * w * 7]: the first 7 channels of the first branch of the seventh block ("mixed_6/conv", here
        Mixed_6d), row by row; 17 x 17 x 7 = 2023 for 299 x 299.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        x = ConvNorm(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = ConvNorm(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = halved(ConvNorm(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = ConvNorm(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = halved(ConvNorm(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x))
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pooled, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160)):
            x = BlockC(inner, name=name)(x)
        spatial = x[..., :SPATIAL_CHANNELS].reshape(len(x), -1)
        x = BlockC(192, name="Mixed_6e")(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(average, name="Mixed_7b")(x)
        x = BlockE(maximum, name="Mixed_7c")(x)
        features = x.mean((1, 2))
        logits = nn.Dense(CLASSES, use_bias=False, precision=PRECISE, name="fc")(features)
        return {"features": features, "logits": logits, "spatial": spatial}
