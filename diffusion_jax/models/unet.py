"""The U-Net of DDPM (Ho et al. 2020, section 4 and appendix B), layer for layer as in its official code."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.errors import InputError
from diffusion_jax.models.layers import (
    AttentionBlock,
    Downsample,
    ResBlock,
    TimeEmbedding,
    Upsample,
    conv3x3,
    group_norm,
    zero_init,
)


class UNet(nn.Module):
    """DDPM's U-Net. The defaults are its CIFAR-10 network, of 35,746,307 parameters.

    Levels are counted from 0, the full resolution; each halves the one before it. The way down has `blocks`
    residual blocks a level and the way up one more. Every map of the way down, the first convolution and the
    downsampled maps included, is concatenated to the input of one block of the way up.

    For 256x256 the paper takes multipliers (1, 1, 2, 2, 4, 4) and attention_levels (4,).

    Attributes:
      channels: channels at level 0 is channels * multipliers[0]; the time embedding has 4 * channels.
      multipliers: channels of each level, as multiples of `channels`.
      blocks: residual blocks a level on the way down.
      attention_levels: levels where self-attention stands after every residual block, down and up. The middle
        always has it.
      out_channels: channels of the result.
      dropout: rate in [0, 1) within each residual block; active only when keys are given.
      groups: groups of every group normalisation.
      dtype: of convolutions, dense layers and attention products. Parameters, statistics of normalisation,
        softmax, time embedding, last convolution and result are float32 whatever it is.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (1,)
    out_channels: int = 3
    dropout: float = 0.0
    groups: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """The network's raw output for noisy images (in DDPM, its estimate of the noise).

        Args:
          x: [B, H, W, C], H and W multiples of 2^(levels - 1), equal or not; of any float type.
          time: [B], integer or float, in steps: 0 to 999 for DDPM's published weights.
          dropout_keys: None for evaluation, or one typed threefry key an example, [B]. The masks of an
            example depend only on its own key.

        Returns:
          float32 [B, H, W, out_channels].

        Raises:
          InputError: H or W cannot be halved that often, channels do not divide into groups, a level does not
            exist, or the dropout's rate or keys are unfit.
        """
        self._check(x)
        levels = range(len(self.multipliers))

        def block(level, name):
            return ResBlock(
                self.channels * self.multipliers[level], self.dropout, self.groups, self.dtype, name=name
            )

        def attention(name):
            return AttentionBlock(self.groups, self.dtype, name=name)

        embedding = TimeEmbedding(self.channels, name="time_embedding")(time)

        h = conv3x3(self.channels, self.dtype, "input_conv")(x)
        skips = [h]
        for level in levels:
            for i in range(self.blocks):
                h = block(level, f"down_{level}_block_{i}")(h, embedding, dropout_keys)
                if level in self.attention_levels:
                    h = attention(f"down_{level}_attention_{i}")(h)
                skips.append(h)
            if level != levels[-1]:
                h = Downsample(self.dtype, name=f"down_{level}_downsample")(h)
                skips.append(h)

        h = block(levels[-1], "middle_block_0")(h, embedding, dropout_keys)
        h = attention("middle_attention")(h)
        h = block(levels[-1], "middle_block_1")(h, embedding, dropout_keys)

        for level in reversed(levels):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(level, f"up_{level}_block_{i}")(h, embedding, dropout_keys)
                if level in self.attention_levels:
                    h = attention(f"up_{level}_attention_{i}")(h)
            if level != 0:
                h = Upsample(self.dtype, name=f"up_{level}_upsample")(h)

        h = nn.swish(group_norm(self.groups, jnp.float32, "output_norm")(h))
        return conv3x3(self.out_channels, jnp.float32, "output_conv", kernel_init=zero_init)(h)

    def _check(self, x: jax.Array) -> None:
        height, width = x.shape[1:3]
        multiple = 2 ** (len(self.multipliers) - 1)
        if height % multiple or width % multiple:
            raise InputError(
                f"images of {height}x{width}: height and width must be multiples of {multiple} "
                f"for {len(self.multipliers)} levels; resize, crop or pad them"
            )
        for channels in (self.channels, *(self.channels * m for m in self.multipliers)):
            if channels % self.groups:
                raise InputError(
                    f"{channels} channels do not divide into {self.groups} groups; "
                    f"take channels as a multiple of {self.groups}, or other groups"
                )
        for level in self.attention_levels:
            if not 0 <= level < len(self.multipliers):
                raise InputError(
                    f"attention at level {level}: levels run from 0 to {len(self.multipliers) - 1}"
                )
