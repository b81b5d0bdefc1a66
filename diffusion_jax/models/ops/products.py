"""Convolutions that are one product of matrices, in their gradients too.

As `lax.conv_general_dilated` both are slow on CPUs inside a loop, such as that of `train.steps_per_call`: XLA has no
library for their gradients there (docs/measured/performance.md).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def of_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution whose windows do not overlap: [N, H, W, C] with [P, P, C, K] -> [N, H / P, W / P, K]."""
    batch, height, width, channels = x.shape
    side = kernel.shape[0]
    rows, columns = height // side, width // side
    patches = x.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)
    product = patches.reshape(-1, side**2 * channels) @ kernel.reshape(-1, kernel.shape[-1])
    return product.reshape(batch, rows, columns, -1)


def of_neighbours(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution along a sequence, inside a border of zeros: [N, L, C] with [2 R + 1, C, K] -> [N, L, K]."""
    batch, length, _ = x.shape
    reach = len(kernel) // 2
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    seen = jnp.concatenate([padded[:, offset : offset + length] for offset in range(len(kernel))], axis=-1)
    product = seen.reshape(batch * length, -1) @ kernel.reshape(-1, kernel.shape[-1])
    return product.reshape(batch, length, -1)


def of_places(x: jax.Array, kernel: jax.Array, places: Sequence[tuple[int, int]]) -> jax.Array:
    """The convolution of some neighbours, inside a border of zeros: [N, H, W, C] with [P, C, K] -> [N, H, W, K].

    `places` are P pairs (rows, columns), counted from the pixel itself: (-1, 0) is the one above it. Other devices
    than CPUs take a convolution whose window is all around them: their memory does not hold each pixel P times.
    """
    cpu, others = (partial(way, places=places) for way in (of_shifts, of_window))
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=others)


def of_shifts(x: jax.Array, kernel: jax.Array, places: Sequence[tuple[int, int]]) -> jax.Array:
    """`of_places` as one product."""
    batch, height, width, channels = x.shape
    border = max(abs(step) for place in places for step in place)
    padded = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    corners = [(border + row, border + column) for row, column in places]
    seen = jnp.concatenate([padded[:, top : top + height, left : left + width] for top, left in corners], axis=-1)
    product = seen.reshape(-1, len(places) * channels) @ kernel.reshape(-1, kernel.shape[-1])
    return product.reshape(batch, height, width, -1)


def of_window(x: jax.Array, kernel: jax.Array, places: Sequence[tuple[int, int]]) -> jax.Array:
    """`of_places` as XLA's convolution."""
    rows, columns = (np.array(steps) for steps in zip(*places, strict=True))
    first, last = (rows.min(), columns.min()), (rows.max(), columns.max())
    window = jnp.zeros((last[0] - first[0] + 1, last[1] - first[1] + 1, *kernel.shape[1:]), kernel.dtype)
    window = window.at[rows - first[0], columns - first[1]].set(kernel)
    padding = [(-a, b) for a, b in zip(first, last, strict=True)]  # below 0 where the window is wholly before
    return jax.lax.conv_general_dilated(x, window, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
