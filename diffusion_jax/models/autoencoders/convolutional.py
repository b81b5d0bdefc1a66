"""The first stages of latent diffusion (Rombach et al. 2022, appendix G; Esser et al. 2021): U-Nets cut at the waist.

Images are [B, H, W, C]. A vector of the code stands for 2^n x 2^n pixels, with n + 1 `widths`. Unlike a U-Net's, the
two halves share no skip connection: all that the decoder knows is the code.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Attend
from diffusion_jax.models.blocks.layers import (
    AttentionBlock,
    Dense,
    Downsample,
    ResBlock,
    Upsample,
    conv3x3,
    default_init,
    group_norm,
    untold,
)
from diffusion_jax.models.ops.attention import by_xla


def check_halvings(x: jax.Array, halvings: int) -> None:
    """`InputError` unless the sides of images x [B, H, W, C] can be halved so often."""
    factor = 2**halvings
    if x.shape[1] % factor or x.shape[2] % factor:
        raise InputError(
            f"images of {x.shape[1]}x{x.shape[2]} cannot be halved {halvings} times; take sides that {factor} "
            "divides: resize, crop or pad them"
        )


class Half(nn.Module):
    """What the encoder and the decoder have in common.

    Attributes:
      out: channels of the result.
      widths: features of each level, the full resolution first; multiples of `groups`.
      blocks: residual blocks of a level of the encoder; those of the decoder have one more.
      attention_levels: levels with attention after every residual block.
      middle_attention: whether the middle has it.
      groups: of every group normalisation.
      dtype: of convolutions and attention products. Parameters, statistics and the result are float32.
      attend: what attention is computed by (`models.ops.attention`).
    """

    out: int
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = True
    groups: int = 32
    dtype: Any = jnp.float32
    attend: Attend = by_xla

    @nn.nowrap
    def block(self, h: jax.Array, features: int, name: str) -> jax.Array:
        """A residual block to `features`."""
        return ResBlock(features, groups=self.groups, dtype=self.dtype, tell=untold, name=name)(h)

    @nn.nowrap
    def attention(self, h: jax.Array, name: str) -> jax.Array:
        """Attention of one head."""
        return AttentionBlock(groups=self.groups, dtype=self.dtype, attend=self.attend, name=name)(h)

    @nn.nowrap
    def level(self, h: jax.Array, number: int, count: int, name: str) -> jax.Array:
        """The residual blocks of a level, each with its attention."""
        for i in range(count):
            h = self.block(h, self.widths[number], f"{name}_{number}_block_{i}")
            if number in self.attention_levels:
                h = self.attention(h, f"{name}_{number}_attention_{i}")
        return h

    @nn.nowrap
    def middle(self, h: jax.Array) -> jax.Array:
        """Two residual blocks at the lowest resolution, with attention between them."""
        h = self.block(h, self.widths[-1], "middle_block_0")
        if self.middle_attention:
            h = self.attention(h, "middle_attention")
        return self.block(h, self.widths[-1], "middle_block_1")

    @nn.nowrap
    def last(self, h: jax.Array) -> jax.Array:
        """Normalisation, swish and the last convolution, in float32."""
        h = nn.swish(group_norm(self.groups, jnp.float32, "output_norm")(h))
        return conv3x3(self.out, jnp.float32, "output_conv")(h)


class Encoder(Half):
    """[B, H, W, C] -> float32 [B, H / 2^n, W / 2^n, out]; fields as of `Half`.

    Raises:
      InputError: in the call, for sides that cannot be halved n times.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        halvings = len(self.widths) - 1
        check_halvings(x, halvings)
        h = conv3x3(self.widths[0], self.dtype, "input_conv")(x)
        for number in range(halvings + 1):
            h = self.level(h, number, self.blocks, "down")
            if number < halvings:
                h = Downsample(dtype=self.dtype, name=f"down_{number}_downsample")(h)
        return self.last(self.middle(h))


class Decoder(Half):
    """[B, H, W, C] -> float32 [B, 2^n H, 2^n W, out]; fields as of `Half`."""

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        return self.end(self.begin(z, 0), 0)

    @nn.nowrap
    def begin(self, z: jax.Array, until: int) -> jax.Array:
        """The middle, and the levels from the lowest to number `until`: [B, H, W, C] -> [B, H', W', features]."""
        h = self.middle(conv3x3(self.widths[-1], self.dtype, "input_conv")(z))
        for number in range(len(self.widths) - 1, until, -1):
            h = self.enlarge(self.level(h, number, self.blocks + 1, "up"), number)
        return self.level(h, until, self.blocks + 1, "up")

    @nn.nowrap
    def end(self, h: jax.Array, after: int) -> jax.Array:
        """The levels above number `after`, and the last convolution: the rest of the decoder."""
        for number in range(after - 1, -1, -1):
            h = self.level(self.enlarge(h, number + 1), number, self.blocks + 1, "up")
        return self.last(h)

    @nn.nowrap
    def enlarge(self, h: jax.Array, number: int) -> jax.Array:
        """From level `number` to the one above it."""
        return Upsample(self.dtype, name=f"up_{number}_upsample")(h)


class ConvolutionalAutoencoder(nn.Module):
    """Encoder and decoder, with a 1x1 on either side of the code. The defaults are Stable Diffusion's, KL-f8.

    Attributes:
      channels: C of the images.
      latent: channels that the decoder begins with.
      says: numbers that the encoder says of each entry of a code: 2, a mean and the logarithm of a variance, or 1.
      dim: channels of the code, between the two 1x1; None for as many as `latent`, without any 1x1.
      widths, blocks, attention_levels, middle_attention, groups, dtype, attend: as of `Half`.
    """

    channels: int = 3
    latent: int = 4
    says: int = 2
    dim: int | None = 4
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = True
    groups: int = 32
    dtype: Any = jnp.float32
    attend: Attend = by_xla

    def setup(self):
        self.encoder = self.half(Encoder, self.says * self.latent)
        self.decoder = self.half(Decoder, self.channels)
        if self.dim is not None:
            self.to_code = Dense(self.says * self.dim, kernel_init=default_init)
            self.from_code = Dense(self.latent, kernel_init=default_init)

    @nn.nowrap
    def half(self, kind: type[Half], out: int) -> Half:
        """An encoder or decoder of these sizes, with `out` channels."""
        levels = self.attention_levels, self.middle_attention
        return kind(out, self.widths, self.blocks, *levels, self.groups, self.dtype, self.attend)

    def encode(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> float32 [B, H / 2^n, W / 2^n, says * dim]."""
        h = self.encoder(x)
        return h if self.dim is None else self.to_code(h)

    def decode(self, z: jax.Array) -> jax.Array:
        """[B, h, w, dim] -> float32 [B, 2^n h, 2^n w, channels]."""
        return self.decoder(self.begun(z))

    def begun(self, z: jax.Array) -> jax.Array:
        """What the decoder begins with: [B, h, w, dim] -> [B, h, w, latent]."""
        return z if self.dim is None else self.from_code(z)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decode(jnp.split(self.encode(x), self.says, axis=-1)[0])
