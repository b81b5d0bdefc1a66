"""3x3 convolutions by Winograd's minimal filtering, F(2x2, 3x3) (Lavin and Gray 2016, section 4.1).

Tiles d of 4x4 pixels, two apart, give results of 2x2 pixels by 16 products in place of 36:

    Y = A^T [(G g G^T) * (B^T d B)] A

with g the kernel and * a product of channels, a matrix product over all tiles for each of the 16 entries. In real
numbers that is the convolution; in floats it rounds about as the sum of 36 products does. Both gradients are the same
bilinear form read in other directions, and cost as little.

x is [N, H, W, C] inside a border of zeros, H and W even; a kernel is [3, 3, C, K]; results are [N, H, W, K]. What is
transformed in both directions is a list of its four columns, each an array that leads with the four rows.

Of an image that was enlarged, 9 of the 16 products are left (`enlarged_convolution`).
"""

import jax
import jax.numpy as jnp
from jax import lax

TURNED = (3, 1, 2, 0)  # entries of G g for the kernel turned by half a circle


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[N, H, W, C], [3, 3, C, K] -> [N, H, W, K]."""
    products = _products(_tiles(x), _filters(kernel, _g), over=(2, 1))
    return _from_products(products, x.shape[:3], _a_transposed)


def input_gradient(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolution` transposed in x: the result's gradient [N, H, W, K], and [3, 3, C, K] -> [N, H, W, C].

    That is the convolution with the kernel turned by half a circle, C and K exchanged.
    """
    filters = _filters(_after(gradient, kernel), _g)
    turned = [jnp.stack([filters[column][row] for row in TURNED]) for column in TURNED]
    products = _products(_tiles(gradient), turned, over=(2, 2))
    return _from_products(products, gradient.shape[:3], _a_transposed)


def kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """`convolution` transposed in the kernel: [N, H, W, C], the result's gradient [N, H, W, K] -> [3, 3, C, K]."""
    columns = _products(_tiles(_after(gradient, x)), _to_products(gradient), over=(1, 1))
    return jnp.stack([jnp.stack(_g_transposed(column)) for column in _g_transposed(columns)], axis=1)


def enlarged_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution of x enlarged, each pixel as 2x2: [N, H, W, C], [3, 3, C, K] -> [N, 2 H, 2 W, K].

    A tile around one pixel c of x is (p, c, c, n) in either direction, p and n being its neighbours. So the entries
    of B^T d are (p - c, 2 c, 0, c - n): one is always zero, and the 2 goes well with the halves of G. H and W are
    any. The gradients that JAX makes of this take as few products.
    """
    batch, height, width, channels = x.shape
    rows = jnp.stack(_around(x, axis=1))
    tiles = [column.reshape(3, -1, channels) for column in _around(rows, axis=3)]
    products = _products(tiles, _filters(kernel, _enlarged_g), over=(2, 1))
    return _from_products(products, (batch, 2 * height, 2 * width), _enlarged_a_transposed)


def _around(x, axis):
    """B^T d of every pixel's tile along one axis, but for the entry that is zero and the factor 2."""
    size, border = x.shape[axis], [(0, 0)] * x.ndim
    border[axis] = (1, 1)
    wide = jnp.pad(x, border)
    before, after = (lax.slice_in_dim(wide, start, start + size, axis=axis) for start in (0, 2))
    return before - x, x, x - after


def _products(columns, others, over):
    """Matrix products of each of the entries, over one axis of either."""
    numbers = ((over[:1], over[1:]), ((0,), (0,)))
    return [lax.dot_general(*pair, numbers) for pair in zip(columns, others, strict=True)]


def _tiles(x):
    """B^T d B of every tile: [N, H, W, C] -> four of [4, N H W / 4, C]."""
    _, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = jnp.stack(_b_transposed([x[:, row : row + height : 2] for row in range(4)]))
    columns = _b_transposed([rows[:, :, :, column : column + width : 2] for column in range(4)])
    return [column.reshape(4, -1, channels) for column in columns]


def _filters(kernel, g):
    """G g G^T: [3, 3, C, K] -> four of [4, C, K]."""
    rows = jnp.stack(g(kernel))
    return g(rows.swapaxes(0, 1))


def _to_products(y):
    """A y A^T of every tile's result y, `_from_products` transposed: [N, H, W, K] -> four of [4, N H W / 4, K]."""
    batch, height, width, channels = y.shape
    pairs = y.reshape(batch, height // 2, 2, width, channels)
    rows = jnp.stack(_a([pairs[:, :, row] for row in range(2)]))
    pairs = rows.reshape(4, batch, height // 2, width // 2, 2, channels)
    return [column.reshape(4, -1, channels) for column in _a([pairs[..., column, :] for column in range(2)])]


def _from_products(columns, shape, a_transposed):
    """A^T m A of every tile: four of [4, N H W / 4, K] -> [N, H, W, K], the first three those of `shape`."""
    batch, height, width = shape
    both = [jnp.stack(a_transposed(column)) for column in a_transposed(columns)]
    y = jnp.stack(both, axis=2).reshape(2, batch, height // 2, width // 2, 2, -1)
    return y.transpose(1, 2, 0, 3, 4, 5).reshape(batch, height, width, -1)


def _b_transposed(d):
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _g(g):
    return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]


def _g_transposed(u):
    half, rest = (u[1] + u[2]) / 2, (u[1] - u[2]) / 2
    return u[0] + half, rest, half + u[3]


def _a(y):
    return y[0], y[0] + y[1], y[0] - y[1], -y[1]


def _a_transposed(m):
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _enlarged_g(g):
    return g[0], g[0] + g[1] + g[2], g[2]


def _enlarged_a_transposed(m):
    return m[0] + m[1], m[1] - m[2]


def _after(gradient, x):
    """x, but for XLA something that depends on `gradient`.

    XLA would see that the forward pass has made the same tiles or filters, and keep them from there: several times
    the memory of what they are made from. To make them again is faster. (JAX's barriers are gone when it looks.)
    """
    zero = jnp.maximum(gradient[0, 0, 0, 0], 1) < 1
    return x + zero.astype(x.dtype)
