"""NCSN++ (Song et al. 2021, appendix H), as in score_sde and in diffusers' folders of it.

A U-Net whose images go along: the noisy one is halved again and again and added to the way down, and the way up adds
up an image, level by level, that is doubled again and again. Both are smoothed by the filter (1, 3, 3, 1) as their
size changes. Every residual sum is divided by sqrt(2).
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.protocols import Activation, EncodeTime, Layer, MakeLayer
from diffusion_jax.models.blocks.fourier import FourierFeatures
from diffusion_jax.models.blocks.layers import (
    AttentionBlock,
    LayerContext,
    Resampling,
    ResBlock,
    conv3x3,
    dense,
    group_norm,
    zero_init,
)
from diffusion_jax.models.ops import convolution
from diffusion_jax.models.unets.skeleton import Parts, Skeleton


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


def _rescaled(layer: Layer) -> Layer:
    """The layer, a residual sum of two, of the variance of one."""
    return lambda h, context: layer(h, context) / math.sqrt(2)


class NCSNpp(Skeleton):
    """NCSN++ with two pyramids of images. The defaults are its network for 256x256.

    Time is a noise level, above 0, and what it says is a score: it is divided by the level. On the way up attention
    stands once on a level, after its blocks.

    Attributes, beside those of `Skeleton`:
      encode_time: how the level is told.
      epsilon: of the normalisations.
    """

    multipliers: tuple[float, ...] = (1, 1, 2, 2, 2, 2, 2)
    attention_levels: tuple[int, ...] = (4,)
    encode_time: EncodeTime = FourierFeatures()  # type: ignore[assignment]  # arguments by place
    epsilon: float = 1e-6

    def parts(self) -> Parts:
        """Residual sums that are rescaled; between levels a residual block that smooths."""
        block, attention = self.wrap(ResBlock), self.wrap(AttentionBlock)
        norm = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype}
        same = norm | {"activation": self.activation}

        def resampled(way: Resampling) -> MakeLayer:
            fields = same | {"resampling": way, "projected": True}
            return lambda features, name: _rescaled(block(features, self.dropout, **fields, name=name))

        def attending(features, name):
            return _rescaled(attention(**norm, attend=self.attend, name=name))

        return Parts(
            block=lambda features, name: _rescaled(block(features, self.dropout, **same, name=name)),
            attention=attending,
            down=resampled(HALVED),
            up=resampled(ENLARGED),
        )

    def __call__(self, x, time, *cond, **options) -> jax.Array:
        """The score of images [B, H, W, C] at the noise levels [B]; the rest as of `Skeleton`."""
        output = super().__call__(x, time, *cond, **options)
        return output / expand(time.astype(output.dtype), output)

    @nn.nowrap
    def encode(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
        inward: Activation = lambda h: h,
    ) -> tuple[jax.Array, list[jax.Array], LayerContext]:
        """As of `Skeleton`, with the noisy image on every level."""
        self.check(x)
        context, parts, last = self.tell(time, cond, dropout_keys), self.parts(), len(self.widths) - 1

        h = inward(conv3x3(self.channels, self.dtype, "input_conv")(x))
        skips, image = [h], x.astype(h.dtype)
        for level, features in enumerate(self.widths):
            for i in range(self.blocks):
                h = parts.block(features, f"down_{level}_block_{i}")(h, context)
                if level in self.attention_levels:
                    h = parts.attention(features, f"down_{level}_attention_{i}")(h, context)
                skips.append(h)
            if level != last:
                h = parts.down(features, f"down_{level}_downsample")(h, context)
                image = smoothly_halved(image)
                h = h + dense(features, self.dtype, f"down_{level}_image")(image)
                skips.append(h)

        return self.turn(h, context), skips, context

    @nn.nowrap
    def decode(self, h: jax.Array, skips: Sequence[jax.Array], context: LayerContext) -> jax.Array:
        """As of `Skeleton`; each level adds to the image."""
        parts, left = self.parts(), list(skips)
        image: jax.Array | float = 0.0
        attended = self.attention_levels if self.up_attention_levels is None else self.up_attention_levels

        def output(h, name):
            h = nn.swish(group_norm(self.groups, jnp.float32, f"{name}_norm", self.epsilon)(h))
            return conv3x3(self.out_channels, jnp.float32, f"{name}_conv", kernel_init=zero_init)(h)

        for level, features in reversed(tuple(enumerate(self.widths))):
            for i in range(self.blocks + 1):
                h = parts.block(features, f"up_{level}_block_{i}")(jnp.concatenate([h, left.pop()], axis=-1), context)
            if level in attended:
                h = parts.attention(features, f"up_{level}_attention")(h, context)
            if level != 0:
                image = smoothly_enlarged(image + output(h, f"up_{level}_image"))
                h = parts.up(features, f"up_{level}_upsample")(h, context)
        return image + output(h, "output")
