"""Imagen's Efficient U-Net for super-resolution (Saharia et al. 2022, section 2.3 and appendix B.1)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Activation, Convolve, Heads
from diffusion_jax.models.blocks.layers import (
    SAME,
    LayerContext,
    ResBlock,
    by_time,
    conv3x3,
    cosinusoid,
    strided,
    untold,
)
from diffusion_jax.models.ops import convolution
from diffusion_jax.models.unets.added_keys import attending, check_levels
from diffusion_jax.models.unets.adm import heads_always
from diffusion_jax.models.unets.skeleton import Parts, Skeleton, of_level


class Resampled(nn.Module):
    """A convolution that changes the size: [B, H, W, C] -> [B, H', W', features]."""

    features: int
    convolve: Convolve
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: LayerContext | None = None) -> jax.Array:
        return conv3x3(self.features, self.dtype, "conv", self.convolve)(x)


class Combined(nn.Module):
    """A map with what the network is told in one vector: h + dense(activation(embedding)), [B, H, W, C]."""

    activation: Activation = nn.swish
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array, context: LayerContext) -> jax.Array:
        return by_time(h, context, self.activation, self.dtype)


class EfficientUNet(Skeleton):
    """Imagen's U-Net for large images, most of whose blocks see small ones.

    A level halves the image *before* its residual blocks and doubles it *after* those of the way up, the first level
    too: four levels see maps of H / 2 to H / 16. Only a level's result goes across, times 1 / sqrt(2); the last
    level's is what the way up begins with. A level is told the embedding once, before its blocks, and attention
    stands once, after them. There is no middle unless it is asked for.

    The defaults are the network for 256x256, but for what it is told: `embed={"tokens": TokensEmbedding(),
    "noise_level": NumberEmbedding()}`, in `SuperResolution`; 516,813,059 parameters for tokens of 4096 features. That
    for 1024x1024 sees the text alone, `text_only_levels=(3,)`. It listens to "tokens", float [B, L, D], and may be
    told "token_mask", bool [B, L].

    Attributes, beside those of `Skeleton`:
      blocks: residual blocks a level, on each way as many.
      heads, token_groups, text_only_levels: as of `AddedKeyUNet`.
    """

    channels: int = 128
    multipliers: tuple[float, ...] = (1, 2, 4, 8)
    blocks: int | tuple[int, ...] = (2, 4, 8, 8)
    attention_levels: tuple[int, ...] = (3,)
    middle: bool = False
    heads: Heads = heads_always(8)
    token_groups: int | None = None
    text_only_levels: tuple[int, ...] = ()

    encode_time = staticmethod(cosinusoid)
    epsilon = 1e-5
    sequences = ("tokens",)
    optional = ("token_mask",)

    @property
    def halvings(self) -> int:
        """Once a level."""
        return len(self.multipliers)

    def parts(self) -> Parts:
        """Residual blocks that are told nothing, with a 1x1 on their other branch; resampling convolutions."""
        block, norm = self.wrap(ResBlock), {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype}
        residual = norm | {"activation": self.activation, "projected": True, "tell": untold}
        reading = norm | {"attend": self.attend, "token_groups": self.token_groups}

        def resampled(convolve):
            return lambda features, name: Resampled(features, convolve, self.dtype, name=name)

        return Parts(
            block=lambda features, name: block(features, self.dropout, **residual, name=name),
            attention=attending(self.text_only_levels, self.heads, self.wrap, reading),
            down=resampled(strided(SAME)),
            up=resampled(convolution.enlarged_conv3x3),
        )

    @nn.nowrap
    def encode(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
        inward: Activation = lambda h: h,
    ) -> tuple[jax.Array, list[jax.Array], LayerContext]:
        """As of `Skeleton`: (result, skip connections of all levels but the last, `LayerContext`)."""
        self.check(x)
        context, parts, results = self.tell(time, cond, dropout_keys), self.parts(), []
        h = inward(conv3x3(self.channels, self.dtype, "input_conv")(x))
        for level, features in enumerate(self.widths):
            h = parts.down(features, f"down_{level}_downsample")(h, context)
            h = self.level(h, context, parts, level, "down", self.attention_levels)
            results.append(h)
        *skips, last = results
        return self.turn(last, context), skips, context

    @nn.nowrap
    def decode(self, h: jax.Array, skips: Sequence[jax.Array], context: LayerContext) -> jax.Array:
        """As of `Skeleton`."""
        parts, left = self.parts(), list(skips)
        for level, features in reversed(tuple(enumerate(self.widths))):
            if level != len(self.widths) - 1:
                h = jnp.concatenate([h, left.pop() / math.sqrt(2)], axis=-1)
            h = self.level(h, context, parts, level, "up", self.attended_up)
            h = parts.up(features, f"up_{level}_upsample")(h, context)
        return self.finish(h)

    @nn.nowrap
    def level(
        self, h: jax.Array, context: LayerContext, parts: Parts, level: int, way: str, attended: tuple[int, ...]
    ) -> jax.Array:
        """The blocks of a level on one way, [B, h, w, C] -> [B, h, w, features of the level]."""
        h = Combined(self.activation, self.dtype, name=f"{way}_{level}_combined")(h, context)
        for i in range(of_level(self.blocks, level)):
            h = parts.block(self.widths[level], f"{way}_{level}_block_{i}")(h, context)
        if level in attended:
            h = parts.attention(level, self.widths[level], f"{way}_{level}_attention")(h, context)
        return h

    @nn.nowrap
    def check(self, x: jax.Array) -> None:
        """As of `Skeleton`; also where `text_only_levels` has one that does not exist."""
        super().check(x)
        check_levels(self.text_only_levels, len(self.multipliers))
