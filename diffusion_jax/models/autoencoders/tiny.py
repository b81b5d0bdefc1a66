"""TAESD: a small first stage whose latents are those of another, already scaled; "AutoencoderTiny" of diffusers.

All levels are as wide, nothing is normalised, and the code has no law: the encoder learned the means of a larger one.
Images are [B, H, W, C] in [-1, 1]; a vector of the code stands for 2^n x 2^n pixels, where there are n + 1 levels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Convolve
from diffusion_jax.models.autoencoders.convolutional import check_halvings
from diffusion_jax.models.blocks.layers import conv3x3, default_init, strided
from diffusion_jax.models.ops import convolution

BOUND = 3.0  # of the latents that the decoder takes, by a smooth cut


class Unbiased(nn.Module):
    """A 3x3 convolution without a bias: [B, H, W, C] -> [B, H', W', C] of `dtype`."""

    convolve: Convolve
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", default_init, (3, 3, x.shape[-1], x.shape[-1]), jnp.float32)
        return self.convolve(x.astype(self.dtype), kernel.astype(self.dtype))


class TinyBlock(nn.Module):
    """relu(x + three convolutions of x, a relu between them): [B, H, W, C] -> the same shape, of `dtype`."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.relu(conv3x3(x.shape[-1], self.dtype, "conv_0")(x))
        h = nn.relu(conv3x3(x.shape[-1], self.dtype, "conv_1")(h))
        return nn.relu(conv3x3(x.shape[-1], self.dtype, "conv_2")(h) + x)


class TinyHalf(nn.Module):
    """What encoder and decoder have in common: `out` channels of the result, `blocks` of each level as it comes."""

    out: int
    width: int
    blocks: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.nowrap
    def level(self, h: jax.Array, number: int) -> jax.Array:
        """The blocks of a level."""
        for i in range(self.blocks[number]):
            h = TinyBlock(self.dtype, name=f"level_{number}_block_{i}")(h)
        return h


class TinyEncoder(TinyHalf):
    """[B, H, W, C] in [-1, 1] -> float32 [B, H / 2^n, W / 2^n, out]; strides pad all sides."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_halvings(x, len(self.blocks) - 1)
        h = conv3x3(self.width, self.dtype, "input_conv")((x + 1) / 2)
        for number in range(len(self.blocks)):
            if number:
                h = Unbiased(strided(), self.dtype, name=f"level_{number}_downsample")(h)
            h = self.level(h, number)
        return conv3x3(self.out, jnp.float32, "output_conv")(h)


class TinyDecoder(TinyHalf):
    """[B, H, W, C] -> float32 [B, 2^n H, 2^n W, out] in [-1, 1], but for what it overshoots."""

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        h = nn.relu(conv3x3(self.width, self.dtype, "input_conv")(BOUND * jnp.tanh(z / BOUND)))
        for number in range(len(self.blocks)):
            h = self.level(h, number)
            if number < len(self.blocks) - 1:
                h = Unbiased(convolution.enlarged_conv3x3, self.dtype, name=f"level_{number}_upsample")(h)
        return 2 * conv3x3(self.out, jnp.float32, "output_conv")(h) - 1


class TinyAutoencoder(nn.Module):
    """Encoder and decoder. The defaults are TAESD's.

    Attributes:
      channels: C of the images.
      latent: channels of the code.
      width: features of every level.
      encoder_blocks, decoder_blocks: blocks of each level, in the order in which a half computes them.
      dtype: of convolutions. Parameters and results are float32.
    """

    channels: int = 3
    latent: int = 4
    width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    dtype: Any = jnp.float32

    def setup(self):
        self.encoder = TinyEncoder(self.latent, self.width, self.encoder_blocks, self.dtype)
        self.decoder = TinyDecoder(self.channels, self.width, self.decoder_blocks, self.dtype)

    def encode(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] in [-1, 1] -> float32 [B, H / 2^n, W / 2^n, latent]."""
        return self.encoder(x)

    def decode(self, z: jax.Array) -> jax.Array:
        """[B, h, w, latent] -> float32 [B, 2^n h, 2^n w, channels]."""
        return self.decoder(z)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decode(self.encode(x))
