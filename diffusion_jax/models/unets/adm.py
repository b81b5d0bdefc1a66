"""The U-Nets of Improved DDPM (Nichol & Dhariwal 2021) and of ADM (Dhariwal & Nichol 2021), as in their code."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Activation, Heads
from diffusion_jax.models.blocks.layers import (
    ENLARGED,
    HALVED,
    KEPT,
    SAME,
    AttentionBlock,
    Downsample,
    Dropout,
    LayerContext,
    Resampling,
    ResBlock,
    Upsample,
    conv3x3,
    cosinusoid,
    dense,
    group_norm,
    zero_init,
)
from diffusion_jax.models.unets.skeleton import Parts, Skeleton


class ModulatedResBlock(nn.Module):
    """Residual block whose second normalisation is scaled and shifted: [B, H, W, C] -> [B, H', W', features].

    GroupNorm, swish, resampling, 3x3; GroupNorm * (1 + scale) + shift, swish, dropout, 3x3 (starts at zero), where
    scale and shift are dense(swish(embedding)); plus the input, resampled, through a 1x1 where the number of
    channels changes. C and `features` are multiples of `groups`. `activation` may stand for swish, and
    `embedding_activation` for that of the embedding; None is `activation`.
    """

    features: int
    dropout: float = 0.0
    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    resampling: Resampling = KEPT
    activation: Activation = nn.swish
    embedding_activation: Activation | None = None

    @nn.compact
    def __call__(self, x: jax.Array, context: LayerContext) -> jax.Array:
        h = self.activation(group_norm(self.groups, self.dtype, "norm_0", self.epsilon)(x))
        h = conv3x3(self.features, self.dtype, "conv_0", self.resampling.convolve)(h)
        told = (self.embedding_activation or self.activation)(context.embedding)
        modulation = dense(2 * self.features, self.dtype, "time")(told)
        scale, shift = jnp.split(modulation[:, None, None, :], 2, axis=-1)
        h = group_norm(self.groups, self.dtype, "norm_1", self.epsilon)(h)
        h = self.activation(h * (1 + scale) + shift)
        h = Dropout(self.dropout, name="dropout")(h, context.dropout_keys)
        h = conv3x3(self.features, self.dtype, "conv_1", kernel_init=zero_init)(h)
        x = self.resampling.resample(x)
        if x.shape[-1] != self.features:
            x = dense(self.features, self.dtype, "shortcut")(x)
        return x + h


def heads_of_width(width: int) -> Heads:
    """`features -> heads`: as many heads as there are `width` features in."""

    def heads(features: int) -> int:
        if features % width:
            raise InputError(f"{features} features do not divide into heads of {width}; take a divisor of them")
        return features // width

    return heads


def heads_always(num: int) -> Heads:
    """`features -> heads`: `num` of them whatever the width."""
    return lambda features: num


class ADMUNet(Skeleton):
    """ADM's U-Net: adaptive normalisation, resampling within residual blocks, heads of 64 features.

    The defaults are the ImageNet 64x64 network but for its labels, `embed={"label": LabelEmbedding(1000)}`, with
    which it has 295,904,454 parameters. It says the mean and the variance (`parameterizations.learned_range`).

    That of 512x512 tells the time as if it were twice as wide: `channels=128, time_features=256, blocks=2,
    multipliers=(1, 2, 2, 4, 4, 8, 8), attention_levels=(4, 5, 6)`, and labels, give its 558,997,638 parameters.

    Attributes, beside those of `Skeleton`:
      heads: `features -> number of heads` (`heads_of_width`, `heads_always`).
    """

    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention_levels: tuple[int, ...] = (1, 2, 3)
    out_channels: int = 6
    heads: Heads = heads_of_width(64)

    encode_time = staticmethod(cosinusoid)
    epsilon = 1e-5
    residual_block = ModulatedResBlock

    @property
    def residual_fields(self) -> dict[str, Any]:
        """What all residual blocks have in common."""
        norm = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype}
        return norm | {"activation": self.activation}

    def parts(self) -> Parts:
        """Blocks modulated by the time, between levels too."""
        block, attention = self.wrap(self.residual_block), self.wrap(AttentionBlock)
        norm = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype}

        def resampled(way):
            fields = self.residual_fields | {"resampling": way}
            return lambda features, name: block(features, self.dropout, **fields, name=name)

        return Parts(
            block=resampled(KEPT),
            attention=lambda level, features, name: attention(
                self.heads(features), **norm, attend=self.attend, name=name
            ),
            down=resampled(HALVED),
            up=resampled(ENLARGED),
        )


class AdditiveUNet(ADMUNet):
    """ADM's U-Net without modulation: the time is added, as DDPM does.

    The defaults are consistency models' LSUN 256x256 network (Song et al. 2023), of 526,304,771 parameters.
    """

    channels: int = 256
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (3, 4, 5)
    out_channels: int = 3

    residual_block = ResBlock  # type: ignore[assignment]


class ImprovedUNet(ADMUNet):
    """Improved DDPM's U-Net: as ADM's, with convolutions between levels and 4 heads.

    The defaults are its CIFAR-10 network, of 52,546,438 parameters.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    attention_levels: tuple[int, ...] = (1, 2)
    heads: Heads = heads_always(4)

    def parts(self) -> Parts:
        """ADM's, and convolutions that pad all sides."""
        return (
            super()
            .parts()
            ._replace(
                down=lambda features, name: Downsample(SAME, dtype=self.dtype, name=name),
                up=lambda features, name: Upsample(dtype=self.dtype, name=name),
            )
        )
