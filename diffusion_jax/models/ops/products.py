"""Products of matrices, and convolutions that are one product, in their gradients too.

As `lax.conv_general_dilated` both are slow on CPUs inside a loop, such as that of `train.steps_per_call`: XLA has no
library for their gradients there (docs/measured/performance.md).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from diffusion_jax.models.ops import patches


def dot_general(
    x: jax.Array,
    y: jax.Array,
    numbers: lax.DotDimensionNumbers,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """`lax.dot_general`, as a part of `nn.Dense`; of bfloat16 added up in float32 on CPUs, and rounded once.

    For such products XLA has the processor's own instructions there, and takes half of the time; for those whose
    results are bfloat16 it has none (docs/measured/performance.md). Gradients are those of `lax.dot_general`.
    """
    plain = partial(
        lax.dot_general,
        dimension_numbers=numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    if x.dtype != jnp.bfloat16 or y.dtype != jnp.bfloat16 or preferred_element_type is not None:
        return plain(x, y)
    return lax.platform_dependent(x, y, cpu=partial(_rounded_once, numbers), default=plain)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rounded_once(numbers, x, y):
    return lax.dot_general(x, y, numbers, preferred_element_type=jnp.float32).astype(x.dtype)


@_rounded_once.defjvp
def _change(numbers, arrays, changes):
    (x, y), (x_change, y_change) = arrays, changes
    change = lax.dot_general(x_change, y, numbers) + lax.dot_general(x, y_change, numbers)
    return _rounded_once(numbers, x, y), change


def of_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution whose windows do not overlap: [N, H, W, C] with [P, P, C, K] -> [N, H / P, W / P, K]."""
    blocks = patches.gathered(x, kernel.shape[0])
    product = blocks.reshape(-1, blocks.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return product.reshape(*blocks.shape[:3], -1)


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
    return lax.platform_dependent(x, kernel, cpu=cpu, default=others)


def of_shifts(x: jax.Array, kernel: jax.Array, places: Sequence[tuple[int, int]]) -> jax.Array:
    """`of_places` as one product."""
    batch, height, width, channels = x.shape
    border = max(abs(step) for place in places for step in place)
    padded = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    corners = [(border + row, border + column) for row, column in places]
    seen = jnp.concatenate([padded[:, top : top + height, left : left + width] for top, left in corners], axis=-1)
    product = seen.reshape(-1, len(places) * channels) @ kernel.reshape(-1, kernel.shape[-1])
    return product.reshape(batch, height, width, -1)


def halving(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 4x4 convolution of stride 2: [N, H, W, C] with [4, 4, C, K] -> [N, H / 2, W / 2, K], H and W even.

    It is inside a border of one zero. Of blocks of 2x2 pixels it is a 2x2 convolution, and that is one product.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // 2 + 1, width // 2 + 1
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    blocks = padded.reshape(batch, rows, 2, columns, 2, channels).swapaxes(2, 3).reshape(batch, rows, columns, -1)
    product = _windows(blocks).reshape(-1, 16 * channels) @ _of_blocks(kernel)
    return product.reshape(batch, rows - 1, columns - 1, -1)


def doubling(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transposed 4x4 convolution of stride 2: [N, H, W, C] with [4, 4, C, K] -> [N, 2 H, 2 W, K].

    It is the transpose of `halving` by kernel.swapaxes(2, 3): each pixel is painted as 4x4, one pixel beyond its own
    2x2 on all sides.
    """
    batch, height, width, channels = x.shape
    outputs = kernel.shape[3]
    rows, columns = height + 1, width + 1  # blocks of 2x2, half a block off
    seen = _windows(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
    # The window of a block holds the pixels that are painted on it, the last rows of the kernel by the first of them.
    turned = kernel.reshape(2, 2, 2, 2, channels, outputs)[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
    product = seen.reshape(-1, 4 * channels) @ turned.reshape(4 * channels, 4 * outputs)
    blocks = product.reshape(batch, rows, columns, 2, 2, outputs).swapaxes(2, 3)
    return blocks.reshape(batch, 2 * rows, 2 * columns, outputs)[:, 1:-1, 1:-1]


def _windows(x):
    """All 2x2 windows: [N, H, W, C] -> [N, H - 1, W - 1, 4 C]."""
    _, height, width, _ = x.shape
    return jnp.concatenate([x[:, i : i + height - 1, j : j + width - 1] for i in range(2) for j in range(2)], axis=-1)


def _of_blocks(kernel):
    """A kernel [4, 4, C, K] as that of 2x2 blocks, [16 C, K], in the order of `_windows`."""
    _, _, channels, outputs = kernel.shape
    return kernel.reshape(2, 2, 2, 2, channels, outputs).swapaxes(1, 2).reshape(-1, outputs)


def of_window(x: jax.Array, kernel: jax.Array, places: Sequence[tuple[int, int]]) -> jax.Array:
    """`of_places` as XLA's convolution."""
    rows, columns = (np.array(steps) for steps in zip(*places, strict=True))
    first, last = (rows.min(), columns.min()), (rows.max(), columns.max())
    window = jnp.zeros((last[0] - first[0] + 1, last[1] - first[1] + 1, *kernel.shape[1:]), kernel.dtype)
    window = window.at[rows - first[0], columns - first[1]].set(kernel)
    padding = [(-a, b) for a, b in zip(first, last, strict=True)]  # below 0 where the window is wholly before
    return lax.conv_general_dilated(x, window, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
