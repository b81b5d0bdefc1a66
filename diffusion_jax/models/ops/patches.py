"""Images as blocks of pixels, each as one pixel of more channels, and back."""

import jax

from diffusion_jax.core.errors import InputError


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
