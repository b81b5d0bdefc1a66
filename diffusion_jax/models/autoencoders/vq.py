"""The networks of VQ-VAE (van den Oord et al. 2017, section 4.1) and VQ-VAE-2 (Razavi et al. 2019, section 3.1).

Images are [B, H, W, C]. A vector of the code stands for 2^n x 2^n pixels, after n halvings.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.layers import Convolution, Dense, conv3x3, default_init, dense
from diffusion_jax.models.ops import products


def halved(features: int, name: str) -> Convolution:
    """A 4x4 convolution of stride 2: [B, H, W, C] -> [B, H / 2, W / 2, features]."""
    return Convolution(features, jnp.float32, products.halving, default_init, (4, 4), name=name)


def doubled(features: int, name: str) -> Convolution:
    """A transposed 4x4 convolution of stride 2: [B, H, W, C] -> [B, 2 H, 2 W, features]."""
    return Convolution(features, jnp.float32, products.doubling, default_init, (4, 4), name=name)


class ResidualStack(nn.Module):
    """x + 1x1(relu(3x3(relu(x)))), `blocks` times, and a last ReLU: [B, H, W, C] -> the same shape.

    Attributes:
      blocks: how many.
      residual: features of the 3x3 convolutions.
    """

    blocks: int
    residual: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.blocks):
            h = conv3x3(self.residual, jnp.float32, f"block_{i}_conv")(nn.relu(x))
            x = x + dense(x.shape[-1], jnp.float32, f"block_{i}_out")(nn.relu(h))
        return nn.relu(x)


class Encoder(nn.Module):
    """[B, H, W, C] -> float32 [B, H / 2^halvings, W / 2^halvings, features]; the first halving has half the features.

    Attributes:
      halvings: at least 1; in the call `InputError` for sides that cannot be halved so often.
      features, residual: of all layers but the first, and inside the residual blocks.
      blocks: residual blocks.
      dim: numbers of each vector of a code, made of the features by a last 1x1; None leaves the features.
    """

    halvings: int = 2
    features: int = 128
    residual: int = 32
    blocks: int = 2
    dim: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        side = 2**self.halvings
        if x.shape[1] % side or x.shape[2] % side:
            raise InputError(
                f"{x.shape[1]}x{x.shape[2]} cannot be halved {self.halvings} times; take sides that {side} divides"
            )
        for i, features in enumerate(_widths(self.features, self.halvings)):
            x = nn.relu(halved(features, f"halving_{i}")(x))
        x = conv3x3(self.features, jnp.float32, "conv")(x)
        x = ResidualStack(self.blocks, self.residual, name="stack")(x)
        return x if self.dim is None else dense(self.dim, jnp.float32, "vectors")(x)


class Decoder(nn.Module):
    """[B, H, W, C] -> float32 [B, 2^halvings H, 2^halvings W, out]: the encoder's mirror image.

    Attributes:
      out: numbers a pixel.
      halvings, features, residual, blocks: as of `Encoder`.
    """

    out: int
    halvings: int = 2
    features: int = 128
    residual: int = 32
    blocks: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = conv3x3(self.features, jnp.float32, "conv")(x)
        x = ResidualStack(self.blocks, self.residual, name="stack")(x)
        for i, features in enumerate(reversed(_widths(self.features, self.halvings)[:-1])):
            x = nn.relu(doubled(features, f"doubling_{i}")(x))
        return doubled(self.out, f"doubling_{self.halvings - 1}")(x)


def _widths(features, halvings):
    """Features after each halving."""
    if halvings < 1:
        raise InputError(f"a network of {halvings} halvings; give at least 1")
    return [features // 2] + [features] * (halvings - 1)


class VQVAE(nn.Module):
    """VQ-VAE's encoder and decoder, with the sizes of its authors' example by default.

    Attributes:
      channels: C of the images.
      dim: numbers of a code's vector, d.
      halvings, features, residual, blocks: as of `Encoder`.
    """

    channels: int
    dim: int = 64
    halvings: int = 2
    features: int = 128
    residual: int = 32
    blocks: int = 2

    def setup(self):
        sizes = self.halvings, self.features, self.residual, self.blocks
        self.encoder = Encoder(*sizes, self.dim)
        self.decoder = Decoder(self.channels, *sizes)

    def encode(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, H / 2^halvings, W / 2^halvings, dim]."""
        return self.encoder(x)

    def decode(self, z: jax.Array) -> jax.Array:
        """The inverse shapes."""
        return self.decoder(z)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decode(self.encode(x))


class VQVAE2(nn.Module):
    """VQ-VAE-2's two levels: the upper code says what the lower is told of, and the picture is made of both.

    The sizes are by default those of the public implementation for 256x256, with codes 64x64 and 32x32.

    Attributes:
      channels: C of the images.
      dim: numbers of a vector, on both levels.
      halvings: from the image to the lower code, and from there to the upper.
      features, residual, blocks: as of `Encoder`.
    """

    channels: int
    dim: int = 64
    halvings: tuple[int, int] = (2, 1)
    features: int = 128
    residual: int = 32
    blocks: int = 2

    def setup(self):
        bottom, top = self.halvings
        sizes = self.features, self.residual, self.blocks
        self.encoder = Encoder(bottom, *sizes)
        self.encoder_top = Encoder(top, *sizes, self.dim)
        self.decoder_top = Decoder(self.dim, top, *sizes)
        self.vectors_bottom = Dense(self.dim, kernel_init=default_init)
        self.enlarge = [doubled(self.dim, None) for _ in range(top)]
        self.decoder = Decoder(self.channels, bottom, *sizes)

    def encode_image(self, x: jax.Array) -> jax.Array:
        """What both codes are made of: [B, H, W, channels] -> [B, h, w, features]."""
        return self.encoder(x)

    def encode_top(self, h: jax.Array) -> jax.Array:
        """The upper vectors, before they are quantised: [B, h, w, features] -> [B, h', w', dim]."""
        return self.encoder_top(h)

    def encode_bottom(self, h: jax.Array, top: jax.Array) -> jax.Array:
        """The lower vectors [B, h, w, dim], told the upper code `top` [B, h', w', dim], which is quantised."""
        return self.vectors_bottom(jnp.concatenate([self.decoder_top(top), h], axis=-1))

    def decode(self, z: dict[str, jax.Array]) -> jax.Array:
        """{"top" [B, h', w', dim], "bottom" [B, h, w, dim]}, both quantised -> [B, H, W, channels]."""
        top = z["top"]
        for enlarge in self.enlarge:
            top = enlarge(top)
        return self.decoder(jnp.concatenate([top, z["bottom"]], axis=-1))

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.encode_image(x)
        top = self.encode_top(h)
        return self.decode({"top": top, "bottom": self.encode_bottom(h, top)})
