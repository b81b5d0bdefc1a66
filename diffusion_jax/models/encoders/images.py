"""Pictures as CLIP's encoder takes them: the short side resized, the middle cut out, colours standardised."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from diffusion_jax.core.arrays import on_channels

# Of the pixels, from 0 to 1, that CLIP was trained on.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def prepared(x: jax.Array, side: int = 224, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> jax.Array:
    """Pictures for `clip.VisionTransformer`: float [B, H, W, 3] in [-1, 1] -> float [B, side, side, 3].

    Published encoders were trained on pictures that Pillow resized, which rounds to whole levels after each axis.
    This does not: it differs from Pillow by 0.3 of a level in the mean, and by 1.2 at most.
    """
    return normalised(middle(resized(x, side), side), mean, std)


def resized(x: jax.Array, side: int) -> jax.Array:
    """Pictures whose short side is `side`: [B, H, W, C] in [-1, 1] -> [B, H', W', C], float32 at least.

    Bicubic and antialiased, the long side's length rounded down. As in Pillow, width comes first, and what overshoots
    is clipped after each.
    """
    batch, height, width, channels = x.shape
    short = min(height, width)
    high, wide = side * height // short, side * width // short
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for shape in ((batch, height, wide, channels), (batch, high, wide, channels)):
        x = jax.image.resize(x, shape, "cubic").clip(-1.0, 1.0)
    return x


def middle(x: jax.Array, side: int) -> jax.Array:
    """The square in the middle: [B, H, W, C] -> [B, side, side, C], of pictures that are no smaller."""
    top, left = ((size - side) // 2 for size in x.shape[1:3])
    return x[:, top : top + side, left : left + side]


def normalised(x: jax.Array, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> jax.Array:
    """Colours less their mean and divided by their deviation, both of pixels from 0 to 1.

    [B, H, W, C] in [-1, 1] -> the same shape and dtype; `mean` and `std` have C numbers.
    """
    centre, spread = (on_channels(jnp.asarray(numbers, x.dtype), x) for numbers in (mean, std))
    return ((x + 1) / 2 - centre) / spread
