"""A network that sees blocks of pixels as one pixel of more channels: most of its work is done on small maps."""

from collections.abc import Mapping

import jax
from flax import linen as nn

from diffusion_jax.core.errors import InputError


class OfPatches(nn.Module):
    """`network`, to which images [B, H, W, C] are [B, H / side, W / side, side^2 C], and whose output is turned back.

    Attributes:
      network: any network for images, of side^2 times the channels of an image as output.
      side: of a block in pixels, a divisor of H and W.
    """

    network: nn.Module
    side: int

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x; `InputError` where blocks do not tile it."""
        return spread(self.network(gathered(x, self.side), time, cond, dropout_keys), self.side)


def gathered(x: jax.Array, side: int) -> jax.Array:
    """Images [B, H, W, C] as blocks, [B, H / side, W / side, side^2 C]; `InputError` where they do not tile them."""
    batch, height, width, channels = x.shape
    if height % side or width % side:
        raise InputError(f"blocks of {side}x{side} do not tile an image of {height}x{width}; take a divisor of both")
    blocks = x.reshape(batch, height // side, side, width // side, side, channels).swapaxes(2, 3)
    return blocks.reshape(batch, height // side, width // side, -1)


def spread(x: jax.Array, side: int) -> jax.Array:
    """The inverse of `gathered`: [B, h, w, side^2 C] -> [B, side h, side w, C]."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, side, side, channels // side**2).swapaxes(2, 3)
    return blocks.reshape(batch, side * height, side * width, -1)
