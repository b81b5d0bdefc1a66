"""LPIPS (Zhang et al. 2018): how far apart two images are to a network that has learned to classify them.

A trunk gives features at five depths. At each, features of a pixel are scaled to length 1, and the squared
differences of their channels are weighted by a head, which learned from people's judgements, and averaged over
pixels (equation 1). The distance is the sum. It is version 0.1 of the original code, with its linear heads.

Products are float32 on every device, for GPUs and TPUs by default round their factors to about three digits.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from diffusion_jax.core.arrays import on_channels
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Convolve, OfImages
from diffusion_jax.models.blocks.layers import Convolution, default_init
from diffusion_jax.models.ops import convolution

# Mean and standard deviation of ImageNet's colours, for pixels in [-1, 1].
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
EPSILON = 1e-10  # beside the length of a pixel's features
PRECISE = lax.Precision.HIGHEST


def precise(stride: int, padding: int) -> Convolve:
    """The convolution with a stride, inside a border of `padding` zeros."""
    return partial(
        lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=convolution.LAYOUT,
        precision=PRECISE,
    )


def same3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 3x3 convolution inside a border of one zero: [B, H, W, C] -> [B, H, W, K]."""
    return lax.platform_dependent(x, kernel, cpu=convolution.conv3x3, default=precise(1, 1))


def unpooled(x: jax.Array) -> jax.Array:
    """x itself."""
    return x


def maximum(x: jax.Array) -> jax.Array:
    """The maximum of every 2x2 pixels."""
    return nn.max_pool(x, (2, 2), (2, 2))


def average(x: jax.Array) -> jax.Array:
    """The mean of every 2x2 pixels."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def overlapping(x: jax.Array) -> jax.Array:
    """The maximum of 3x3 pixels, about every other one that has all its neighbours."""
    return nn.max_pool(x, (3, 3), (2, 2))


class Conv(NamedTuple):
    """A convolution with a bias, and a ReLU: its `place` among torchvision's `features`, and what it computes."""

    place: int
    features: int
    window: int = 3
    convolve: Convolve = same3x3


class Stage(NamedTuple):
    """A pooling, then convolutions; what comes out is compared."""

    pool: OfImages
    convolutions: tuple[Conv, ...]


class Trunk(nn.Module):
    """Call with images [B, H, W, 3]: a list of features [B, H', W', C], one a stage.

    Attributes:
      stages: in turn.
      least: height and width of the smallest images that leave something to the last stage.
    """

    stages: tuple[Stage, ...]
    least: int

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        if min(x.shape[1:3]) < self.least:
            raise InputError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels are too small to be compared by LPIPS; "
                f"enlarge them to {self.least} x {self.least} at least"
            )
        found = []
        for pool, convolutions in self.stages:
            x = pool(x)
            for place, features, window, convolve in convolutions:
                conv = Convolution(features, jnp.float32, convolve, default_init, (window, window), name=str(place))
                x = nn.relu(conv(x))
            found.append(x)
        return found


def vgg16(pool: OfImages = maximum) -> Trunk:
    """VGG16 (Simonyan & Zisserman 2015), what is usually trained by. With `average`, as OpenAI's PyTorch code of
    consistency models has it, it is another distance."""
    return Trunk(
        (
            Stage(unpooled, (Conv(0, 64), Conv(2, 64))),
            Stage(pool, (Conv(5, 128), Conv(7, 128))),
            Stage(pool, (Conv(10, 256), Conv(12, 256), Conv(14, 256))),
            Stage(pool, (Conv(17, 512), Conv(19, 512), Conv(21, 512))),
            Stage(pool, (Conv(24, 512), Conv(26, 512), Conv(28, 512))),
        ),
        least=16,
    )


def alexnet() -> Trunk:
    """AlexNet, "one weird trick" (Krizhevsky 2014), what LPIPS is usually measured by."""
    return Trunk(
        (
            Stage(unpooled, (Conv(0, 64, 11, precise(4, 2)),)),
            Stage(overlapping, (Conv(3, 192, 5, precise(1, 2)),)),
            Stage(overlapping, (Conv(6, 384),)),
            Stage(unpooled, (Conv(8, 256),)),
            Stage(unpooled, (Conv(10, 256),)),
        ),
        least=31,
    )


class Lpips(nn.Module):
    """Call with two batches of images, floats [B, H, W, C] in [-1, 1], C 3 or 1 (grey): distances, float32 [B].

    Raises `InputError` for other channels, and for images that are too small for the trunk.
    """

    trunk: Trunk

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        # One after the other: where y is a constant, nothing is kept for its gradient.
        pairs = zip(self.trunk(_standardized(x)), self.trunk(_standardized(y)), strict=True)
        total = jnp.zeros(len(x), jnp.float32)
        for i, (a, b) in enumerate(pairs):
            head = self.param(f"lin{i}", nn.initializers.ones_init(), (a.shape[-1], 1), jnp.float32)
            squares = ((_unit(a) - _unit(b)) ** 2).mean((1, 2))
            total += jnp.dot(squares, head, precision=PRECISE)[:, 0]
        return total


def _standardized(x):
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise InputError(f"LPIPS compares images of 1 or 3 channels, [B, H, W, C], not {list(x.shape)}")
    colours = jnp.broadcast_to(x.astype(jnp.float32), (*x.shape[:-1], 3))
    return (colours - on_channels(SHIFT, x)) / on_channels(SCALE, x)


def _unit(x):
    """x / (its length + EPSILON) along the channels; where there is nothing, 0, with a gradient of 0."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return jnp.where(square > 0, x / (length + EPSILON), 0.0)


def enlarged(x: jax.Array, side: int = 224, below: int = 256) -> jax.Array:
    """Images as consistency models' code shows them to LPIPS: the smaller ones at 224 x 224, bilinearly.

    Args:
      x: floats [B, H, W, C].
      side: height and width of the result,
      below: for images whose height or width is less than this; others stay as they are.

    Returns:
      float32.
    """
    x = x.astype(jnp.float32)
    if min(x.shape[1:3]) >= below:
        return x
    return jax.image.resize(x, (len(x), side, side, x.shape[-1]), "bilinear", antialias=False)
