"""Numbers as bits, and bits as the real numbers -1 and 1, which any Gaussian process can destroy.

(Analog Bits, Chen, Zhang & Hinton 2023.)
"""

import jax
import jax.numpy as jnp

from diffusion_jax.core.errors import InputError


def encode(x: jax.Array, num: int) -> jax.Array:
    """int [...] in 0, ..., 2^num - 1 to float32 [..., num] of -1 and 1, the highest bit first."""
    if not 1 <= num <= 31:
        raise InputError(f"numbers have 1 to 31 bits, not {num}")
    place = jnp.arange(num - 1, -1, -1)
    return ((jnp.asarray(x)[..., None] >> place) & 1).astype(jnp.float32) * 2 - 1


def decode(bits: jax.Array) -> jax.Array:
    """The nearest numbers, int32 [...], to float [..., num]: a bit is set where it is above 0."""
    place = jnp.arange(bits.shape[-1] - 1, -1, -1)
    return jnp.sum((bits > 0).astype(jnp.int32) << place, axis=-1)
