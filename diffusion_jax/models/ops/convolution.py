"""3x3 convolutions that are fast on CPUs too, forward and in both gradients.

A convolution is linear in the image and in the kernel. So are its two transposes, and each of the three is a
transpose of the others:

    convolution      x, w -> y      image [N, H, W, C], kernel [3, 3, C, K], result [N, H', W', K]
    input gradient   y, w -> x
    kernel gradient  x, y -> w

Here they are three primitives of JAX, so that derivatives of any order, in either direction, stay among them. What a
primitive becomes depends on the device that it is compiled for. GPUs and TPUs: XLA's own convolution and the
transposes that JAX gives it. CPUs, where XLA leaves that slow (docs/measured/performance.md): Winograd's filtering
(`winograd`), where it pays; else a convolution in the one layout that XLA hands to a fast library. It changes
others to that layout by itself, but not inside a loop, where a gradient takes ten to two hundred times as long. What
has few channels is a matrix product and nine shifts, and so is the input gradient of few pixels or of a stride. That
of bfloat16 is filtered in float32 where there are many pixels, and else it is nine matrix products.

An image that was enlarged repeats itself, and so its convolution has a name, `enlarged_conv3x3`: on CPUs it takes a
quarter of the multiplications.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from diffusion_jax.models.ops import winograd

Padding: TypeAlias = tuple[tuple[int, int], tuple[int, int]]  # zeros ((above, below), (left, right))

SAME: Padding = ((1, 1), (1, 1))
LAYOUT = ("NHWC", "HWIO", "NHWC")
EXACT = (jnp.float32, jnp.float64)  # what may be added before it is multiplied
CHANNELS = TILES = 128  # Winograd's filtering pays from so many of each on,
PIXELS = 64  # and that of an enlarged image from so many pixels on, before
# Of bfloat16: filtering pays from so many pixels on; nine products from so many channels on, or from fewer where the
# result has at most so many numbers.
MANY, WIDE, FEWEST, SUMS = 4096, 256, 32, 2**20
NARROW = 8  # a product and shifts pay for at most so many channels of the result


def conv3x3(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = SAME) -> jax.Array:
    """The convolution (in the sense of networks: the kernel is not turned) of images inside a border of zeros.

    Args:
      x: floats [N, H, W, C].
      kernel: [3, 3, C, K], of the type of x.
      stride: pixels from one result to the next, in both directions.
      padding: zeros ((above, below), (left, right)).

    Returns:
      [N, H', W', K], with H' = (H + above + below - 3) // stride + 1 and W' alike.
    """
    x, kernel = _spread_alike(x, kernel), _spread_alike(kernel, x)
    return convolution.bind(x, kernel, **_Window(stride, padding, (x.shape[1], x.shape[2]))._asdict())


def _spread_alike(x, other):
    """x plus a sum of nothing, so that in a `shard_map` it differs between devices wherever `other` does."""
    return x + lax.full_like(other, 0, shape=())


def enlarged(x: jax.Array) -> jax.Array:
    """Nearest neighbour x2: [N, H, W, C] -> [N, 2 H, 2 W, C]."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def enlarged_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv3x3(enlarged(x), kernel)`.

    Args:
      x: floats [N, H, W, C].
      kernel: [3, 3, C, K], of the type of x.

    Returns:
      [N, 2 H, 2 W, K].
    """

    def plain(x, kernel):
        return conv3x3(enlarged(x), kernel)

    def filtered(x, kernel):
        exact = jnp.promote_types(x.dtype, jnp.float32)
        return winograd.enlarged_convolution(x.astype(exact), kernel.astype(exact)).astype(x.dtype)

    if x.size // x.shape[3] < PIXELS:
        return plain(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=filtered, default=plain)


class _Window(NamedTuple):
    stride: int
    padding: tuple[tuple[int, int], tuple[int, int]]
    size: tuple[int, int]  # H and W of the image

    def axes(self, result: Any) -> list[tuple[int, int, int]]:
        """(zeros before, pixels of the image, pixels of the result) of both axes; `result` is [N, H', W', K]."""
        return [(pad[0], n, m) for pad, n, m in zip(self.padding, self.size, result.shape[1:3], strict=True)]


# The shapes of the image, the kernel and the result, from those of the other two.


def _image(y, kernel, window):
    return jax.ShapeDtypeStruct((y.shape[0], *window.size, kernel.shape[2]), y.dtype)


def _kernel(x, y, window):
    return jax.ShapeDtypeStruct((3, 3, x.shape[3], y.shape[3]), x.dtype)


def _result(x, kernel, window):
    sides = ((n + sum(pad) - 3) // window.stride + 1 for n, pad in zip(window.size, window.padding, strict=True))
    return jax.ShapeDtypeStruct((x.shape[0], *sides, kernel.shape[3]), x.dtype)


# As XLA has them, and as JAX transposes them.


def _xla_convolution(x, kernel, window):
    stride = (window.stride, window.stride)
    return lax.conv_general_dilated(x, kernel, stride, window.padding, dimension_numbers=LAYOUT)


def _xla_input_gradient(y, kernel, window):
    return jax.linear_transpose(lambda x: _xla_convolution(x, kernel, window), _image(y, kernel, window))(y)[0]


def _xla_kernel_gradient(x, y, window):
    return jax.linear_transpose(lambda kernel: _xla_convolution(x, kernel, window), _kernel(x, y, window))(y)[0]


# On CPUs.


def _pays(x, y, window) -> bool:
    """Whether Winograd's filtering can go from x to y, [N, H, W, C] and [N, H', W', K], or back, and faster."""
    batch, height, width, channels = x.shape
    fits = window.stride == 1 and window.padding == SAME and height % 2 == width % 2 == 0
    many = min(channels, y.shape[3]) >= CHANNELS and batch * height * width // 4 >= TILES
    return fits and many and x.dtype in EXACT


def _few(result, given) -> bool:
    """Whether the result has so few channels that the product, nine times as large, holds no more than is given."""
    return result.shape[3] <= min(NARROW, given.shape[3] // 9) and given.dtype in EXACT


def _cpu_convolution(x, kernel, window):
    result = _result(x, kernel, window)
    if x.dtype == jnp.bfloat16:
        return _of_bfloat16(x, kernel, result, window)
    if _pays(x, result, window):
        return winograd.convolution(x, kernel)
    if window.stride == 1 and _few(result, x):  # which then is the input gradient of another convolution
        mirrored = tuple((2 - before, 2 - after) for before, after in window.padding)
        return _by_shifts(x, _turned(kernel), _Window(1, mirrored, result.shape[1:3]))
    return _xla_convolution(x, kernel, window)


def _of_bfloat16(x, kernel, result, window):
    """In the ways that add up in float32 and round once, where they pay (`products.dot_general`)."""
    exact, channels = x.astype(jnp.float32), min(x.shape[3], result.shape[3])
    if result.size // result.shape[3] >= MANY and _pays(exact, result, window):
        return winograd.convolution(exact, kernel.astype(jnp.float32)).astype(x.dtype)
    if channels >= (FEWEST if result.size <= SUMS else WIDE):
        return _of_nine_products(x, kernel, result, window)
    return _xla_convolution(x, kernel, window)


def _of_nine_products(x, kernel, result, window):
    """One for each pixel of the kernel: the sum of what nine shifted images give."""
    batch, height, width = result.shape[:3]
    padded = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))

    def given(row, column):
        ends = (row + window.stride * (height - 1) + 1, column + window.stride * (width - 1) + 1)
        step = (1, window.stride, window.stride, 1)
        seen = lax.slice(padded, (0, row, column, 0), (batch, *ends, x.shape[3]), step).reshape(-1, x.shape[3])
        return jnp.matmul(seen, kernel[row, column], preferred_element_type=jnp.float32)

    total = sum(given(row, column) for row in range(3) for column in range(3))
    return total.astype(x.dtype).reshape(result.shape)


def _cpu_input_gradient(y, kernel, window):
    if _pays(_image(y, kernel, window), y, window):
        return winograd.input_gradient(y, kernel)
    batch, height, width, channels = y.shape
    if window.stride > 1 or batch * height * width <= channels or _few(_image(y, kernel, window), y):
        return _by_shifts(y, kernel, window)
    border = [(2 - before, n + before - m) for before, n, m in window.axes(y)]
    return lax.conv_general_dilated(y, _turned(kernel), (1, 1), border, dimension_numbers=LAYOUT)


def _turned(kernel):
    """The kernel of the way back, turned by half a circle: [3, 3, C, K] -> [3, 3, K, C]."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _by_shifts(y, kernel, window):
    """The input gradient: what each pixel of the result gives to the nine that it came from, and the sum of that.

    It holds 9 C numbers for each of these pixels, but needs no turned copy of the kernel, which outweighs few pixels,
    and multiplies none of the zeros that a stride puts between pixels.
    """
    batch, height, width, channels = y.shape
    given = (y.reshape(-1, channels) @ kernel.reshape(-1, channels).T).reshape(batch, height, width, 3, 3, -1)

    def zeros(offset, before, n, m):  # before, after and between what offset 0, 1 or 2 of the kernel gives n pixels
        first = offset - before
        return first, n - first - window.stride * (m - 1) - 1, window.stride - 1

    def shifted(row, column):
        down, right = (zeros(offset, *axis) for offset, axis in zip((row, column), window.axes(y), strict=True))
        return lax.pad(given[:, :, :, row, column], jnp.zeros((), y.dtype), ((0, 0, 0), down, right, (0, 0, 0)))

    return sum(shifted(row, column) for row in range(3) for column in range(3))


def _cpu_kernel_gradient(x, y, window):
    if _pays(x, y, window):
        return winograd.kernel_gradient(x, y)
    stride = window.stride
    border = [(before, stride * (m - 1) + 3 - n - before) for before, n, m in window.axes(y)]
    channels_first, as_kernel = x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3)
    found = lax.conv_general_dilated(
        channels_first, as_kernel, (1, 1), border, rhs_dilation=(stride, stride), dimension_numbers=LAYOUT
    )
    return found.transpose(1, 2, 0, 3)


# The primitives.

Bilinear: TypeAlias = Callable[[jax.Array, jax.Array, _Window], jax.Array]


def _primitive(
    name: str, shape: Callable[[Any, Any, _Window], Any], by_xla: Bilinear, on_cpu: Bilinear
) -> core.Primitive:
    """What `by_xla` computes, and `on_cpu` on CPUs, of (array, array, window)."""

    def abstract(first, second, **window):
        result = shape(first, second, _Window(**window))
        return first.update(shape=result.shape, dtype=result.dtype)

    def lowered(function):
        return mlir.lower_fun(lambda *pair, **window: function(*pair, _Window(**window)), multiple_results=False)

    primitive = core.Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=_Window._fields))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, lowered(by_xla))
    mlir.register_lowering(primitive, lowered(on_cpu), platform="cpu")
    return primitive


def _vmapped(by_xla):
    def batched(pair, axes, **window):
        return jax.vmap(lambda *pair: by_xla(*pair, _Window(**window)), axes)(*pair), 0

    return batched


def _folded(primitive, by_xla):
    """Images of the new axis that share a kernel are one larger batch; a kernel for each of them is left to XLA."""

    def batched(pair, axes, **window):
        if axes[1] is not None:  # the kernel has the new axis too
            return _vmapped(by_xla)(pair, axes, **window)
        images = jnp.moveaxis(pair[0], axes[0], 0)
        found = primitive.bind(images.reshape(-1, *images.shape[2:]), pair[1], **window)
        return found.reshape(*images.shape[:2], *found.shape[1:]), 0

    return batched


convolution = _primitive("conv3x3", _result, _xla_convolution, _cpu_convolution)
input_gradient = _primitive("conv3x3_input_gradient", _image, _xla_input_gradient, _cpu_input_gradient)
kernel_gradient = _primitive("conv3x3_kernel_gradient", _kernel, _xla_kernel_gradient, _cpu_kernel_gradient)

batching.primitive_batchers[convolution] = _folded(convolution, _xla_convolution)
batching.primitive_batchers[input_gradient] = _folded(input_gradient, _xla_input_gradient)
batching.primitive_batchers[kernel_gradient] = _vmapped(_xla_kernel_gradient)

# (of the result's cotangent and both arguments, the one to transpose in being unknown) -> that one's cotangent
ad.defbilinear(
    convolution,
    lambda y, _, kernel, **window: input_gradient.bind(y, kernel, **window),
    lambda y, x, _, **window: kernel_gradient.bind(x, y, **window),
)
ad.defbilinear(
    input_gradient,
    lambda x, _, kernel, **window: convolution.bind(x, kernel, **window),
    lambda x, y, _, **window: kernel_gradient.bind(x, y, **window),
)
ad.defbilinear(
    kernel_gradient,
    lambda kernel, _, y, **window: input_gradient.bind(y, kernel, **window),
    lambda kernel, x, _, **window: convolution.bind(x, kernel, **window),
)
