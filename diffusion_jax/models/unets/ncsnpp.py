"""NCSN++ (Song et al. 2021, appendix H), as in score_sde and in diffusers' folders of it.

A U-Net whose images go along: the noisy one is halved again and again and added to the way down, and the way up adds
up an image, level by level, that is doubled again and again. Both are smoothed by the filter (1, 3, 3, 1) as their
size changes. Every residual sum is divided by sqrt(2).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.protocols import EncodeTime
from diffusion_jax.models.blocks.fourier import FourierFeatures
from diffusion_jax.models.blocks.layers import LayerContext, Resampling, conv3x3, dense, group_norm, zero_init
from diffusion_jax.models.ops import convolution
from diffusion_jax.models.unets.ddpmpp import DDPMpp
from diffusion_jax.models.unets.skeleton import of_level


def smoothly_halved(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, H / 2, W / 2, C], H and W even; zeros are beyond the edges."""
    for axis in (1, 2):
        x = jnp.moveaxis(x, axis, 1)
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
        first, second, third, fourth = (padded[:, k : k + x.shape[1] : 2] for k in range(4))
        x = jnp.moveaxis((first + 3 * second + 3 * third + fourth) / 8, 1, axis)
    return x


def smoothly_enlarged(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, 2 H, 2 W, C]; zeros are beyond the edges."""
    for axis in (1, 2):
        x = jnp.moveaxis(x, axis, 1)
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
        pairs = jnp.stack([(padded[:, :-2] + 3 * x) / 4, (3 * x + padded[:, 2:]) / 4], axis=2)
        x = jnp.moveaxis(pairs.reshape(x.shape[0], -1, *x.shape[2:]), 1, axis)
    return x


HALVED = Resampling(smoothly_halved, lambda x, kernel: convolution.conv3x3(smoothly_halved(x), kernel))
ENLARGED = Resampling(smoothly_enlarged, lambda x, kernel: convolution.conv3x3(smoothly_enlarged(x), kernel))


def smoothed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution by the filter (1, 3, 3, 1) and a kernel [3, 3, C, K]: [B, H, W, C] -> [B, H / 2, W / 2, K].

    All of it has a stride of 2, and zeros are beyond the edges of x only, not of what lies between.
    """
    for axis in (1, 2):
        x = jnp.moveaxis(x, axis, 1)
        padded = jnp.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)))
        first, second, third, fourth = (padded[:, k : k + x.shape[1] + 1] for k in range(4))
        x = jnp.moveaxis((first + 3 * second + 3 * third + fourth) / 8, 1, axis)
    return convolution.conv3x3(x, kernel, stride=2, padding=((0, 0), (0, 0)))


class ResidualNCSNpp(DDPMpp):
    """NCSN++ as EDM and consistency models train it on CIFAR-10 (Karras et al. 2022, Song et al. 2023).

    The noisy image goes along, halved by a convolution of its own at each level, as a residual of the way down. Time
    is told by random Fourier features of what the network is given (EDM: ln(level) / 4). The defaults have 56,395,651
    parameters.
    """

    encode_time: EncodeTime = FourierFeatures(of=lambda time: time)  # type: ignore[assignment]  # arguments by place

    down_way, up_way = HALVED, ENLARGED

    @nn.nowrap
    def accompany(self, h: jax.Array, image: jax.Array, level: int) -> tuple[jax.Array, jax.Array]:
        """The sum of both, of the variance of one, is both."""
        narrower = conv3x3(h.shape[-1], self.dtype, f"down_{level}_image", smoothed_conv)
        h = (h + narrower(image)) / math.sqrt(2)
        return h, h


class NCSNpp(DDPMpp):
    """NCSN++ with two pyramids of images. The defaults are its network for 256x256.

    Time is a noise level, above 0, and what it says is a score: it is divided by the level.

    Attributes, beside those of `Skeleton`:
      encode_time: how the level is told.
      epsilon: of the normalisations.
    """

    multipliers: tuple[float, ...] = (1, 1, 2, 2, 2, 2, 2)
    blocks: int = 2
    dropout: float = 0.0
    attention_levels: tuple[int, ...] = (4,)
    encode_time: EncodeTime = FourierFeatures()  # type: ignore[assignment]  # arguments by place
    epsilon: float = 1e-6

    down_way, up_way = HALVED, ENLARGED

    def __call__(self, x, time, *cond, **options) -> jax.Array:
        """The score of images [B, H, W, C] at the noise levels [B]; the rest as of `Skeleton`."""
        output = super().__call__(x, time, *cond, **options)
        return output / expand(time.astype(output.dtype), output)

    @nn.nowrap
    def accompany(self, h: jax.Array, image: jax.Array, level: int) -> tuple[jax.Array, jax.Array]:
        """The noisy image is on every level."""
        image = smoothly_halved(image.astype(h.dtype))
        return h + dense(h.shape[-1], self.dtype, f"down_{level}_image")(image), image

    @nn.nowrap
    def decode(self, h: jax.Array, skips: Sequence[jax.Array], context: LayerContext) -> jax.Array:
        """As of `Skeleton`; each level adds to the image."""
        parts, left = self.parts(), list(skips)
        image: jax.Array | float = 0.0
        attended = self.attended_up

        def output(h, name):
            h = nn.swish(group_norm(self.groups, jnp.float32, f"{name}_norm", self.epsilon)(h))
            return conv3x3(self.out_channels, jnp.float32, f"{name}_conv", kernel_init=zero_init)(h)

        for level, features in reversed(tuple(enumerate(self.widths))):
            for i in range(of_level(self.blocks, level) + 1):
                h = parts.block(features, f"up_{level}_block_{i}")(jnp.concatenate([h, left.pop()], axis=-1), context)
            if level in attended:
                h = parts.attention(level, features, f"up_{level}_attention")(h, context)
            if level != 0:
                image = smoothly_enlarged(image + output(h, f"up_{level}_image"))
                h = parts.up(features, f"up_{level}_upsample")(h, context)
        return image + output(h, "output")
