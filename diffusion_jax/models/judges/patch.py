"""The discriminator of patches (Isola et al. 2017, section 3.2): each of its outputs sees a part of the image."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.layers import group_norm

MOST = 8  # times the first layer's features that a layer has


def normal(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """N(0, 0.02^2): what every kernel starts from."""
    return 0.02 * rng.flat(jax.random.normal, key, shape, dtype)


def leaky(x: jax.Array) -> jax.Array:
    """x where it is above 0, else x / 5."""
    return nn.leaky_relu(x, 0.2)


class PatchDiscriminator(nn.Module):
    """Call with images [B, H, W, C]: float32 logits [B, H', W', 1], large for what is real.

    4x4 convolutions inside a border of one zero: `halvings` of stride 2, to `features`, twice as many and so on up to
    8 times, then one of stride 1 to twice as many again, and one to the logits. All but the first and the last are
    normalised. With 3 halvings an output sees 70x70 pixels, and 256x256 have 30x30 of them.

    Batch normalisation, which the authors have, would make the loss of an example depend on the others of its share;
    groups are normalised instead, with as many parameters.

    Attributes:
      features: of the first layer, a multiple of `groups` / 2.
      halvings: at least 1.
      groups: of every group normalisation.

    Raises:
      InputError: in the call, for images that are too small for so many halvings.
    """

    features: int = 64
    halvings: int = 3
    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if min(x.shape[1:3]) < (least := 3 * 2**self.halvings):
            raise InputError(
                f"images of {x.shape[1]}x{x.shape[2]} leave nothing to a discriminator of {self.halvings} halvings; "
                f"take fewer, or images of {least}x{least} at least"
            )
        convolution = partial(nn.Conv, kernel_size=(4, 4), padding=1, kernel_init=normal)
        h = leaky(convolution(self.features, strides=2, name="conv_0")(x.astype(jnp.float32)))
        for i in range(1, self.halvings + 1):
            strides = 2 if i < self.halvings else 1
            features = self.features * min(2**i, MOST)
            h = convolution(features, strides=strides, use_bias=False, name=f"conv_{i}")(h)
            h = leaky(group_norm(self.groups, jnp.float32, f"norm_{i}", epsilon=1e-5)(h))
        return convolution(1, name="logits")(h)
