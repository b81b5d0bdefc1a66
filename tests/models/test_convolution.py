"""3x3 convolutions and their derivatives against XLA's own, in double precision; and what is compiled for whom."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffusion_jax.models.blocks.layers import Convolution, Dense, strided
from diffusion_jax.models.ops import winograd
from diffusion_jax.models.ops.convolution import LAYOUT, SAME, conv3x3, enlarged, enlarged_conv3x3
from diffusion_jax.models.ops.products import of_neighbours, of_patches, of_places, of_shifts, of_window

pytestmark = pytest.mark.slow

DOWN = ((0, 1), (0, 1))
# Channels. Deep outnumber pixels; narrowing and widening ones change by 9 and more; wide are Winograd's to filter.
NARROW, DEEP, NARROWING, WIDENING, WIDE = (3, 5), (5, 43), (36, 4), (3, 29), (128, 130)
CASES = [
    (1, SAME, (2, 6, 7), NARROW),
    (1, ((0, 2), (1, 0)), (2, 5, 6), NARROW),
    (2, SAME, (2, 6, 8), NARROW),
    (2, SAME, (2, 7, 6), NARROW),
    (2, DOWN, (2, 6, 8), NARROW),
    (2, DOWN, (2, 7, 6), NARROW),
    (2, ((0, 0), (2, 1)), (2, 6, 7), NARROW),
    (1, SAME, (2, 4, 5), DEEP),
    (1, ((0, 2), (1, 0)), (2, 5, 4), DEEP),
    (1, SAME, (2, 5, 6), NARROWING),
    (1, ((0, 2), (1, 0)), (2, 6, 5), NARROWING),
    (1, ((0, 2), (1, 0)), (2, 6, 5), WIDENING),
    (1, SAME, (2, 16, 18), WIDE),
]


def theirs(x, kernel, stride=1, padding=SAME):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


def drawn(*shapes, dtype=np.float64):
    noise = np.random.default_rng(0)
    return tuple(noise.standard_normal(shape).astype(dtype) for shape in shapes)


def derivatives(function, x, kernel, along):
    """Of first order in either direction, and of second order through each gradient."""

    def slope(wrt):
        def change(*arguments):
            return sum((array**2).sum() for array in jax.tree.leaves(jax.grad(third, wrt)(*arguments)))

        return jax.grad(change, (0, 1))(x, kernel)

    def third(x, kernel):
        return (function(x, kernel) ** 3).sum()

    value, pull = jax.vjp(function, x, kernel)
    push = jax.jvp(function, (x, kernel), (jnp.cos(x), jnp.sin(kernel)))[1]
    return value, pull(along(value.shape)), push, slope(0), slope(1)


@pytest.mark.parametrize(("stride", "padding", "size", "channels"), CASES)
def test_values_and_derivatives_are_xlas(x64, stride, padding, size, channels):
    """Of first and second order, to rounding; the wide case takes all three of Winograd's forms."""
    arrays = drawn((*size, channels[0]), (3, 3, *channels))
    check_derivatives(*(lambda x, kernel, f=f: f(x, kernel, stride, padding) for f in (conv3x3, theirs)), *arrays)


def of_enlarged(x, kernel):
    return theirs(enlarged(x), kernel)


@pytest.mark.parametrize(("size", "channels"), [((2, 6, 7), NARROW), ((2, 9, 4), WIDENING), ((1, 3, 4), NARROW)])
@pytest.mark.exhaustive
def test_of_an_enlarged_image_too(x64, size, channels):
    """By the 9 products of Winograd's that are left, but for the last case, which has too few pixels."""
    check_derivatives(enlarged_conv3x3, of_enlarged, *drawn((*size, channels[0]), (3, 3, *channels)))


def check_derivatives(ours, xlas, x, kernel):
    def along(shape):
        return jnp.cos(jnp.arange(np.prod(shape), dtype=float)).reshape(shape)

    got, expected = (derivatives(function, x, kernel, along) for function in (ours, xlas))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(("ours", "xlas", "size"), [(conv3x3, theirs, 16), (enlarged_conv3x3, of_enlarged, 8)])
def test_winograds_filtering_rounds_as_a_sum_does(ours, xlas, size):
    """float32 against float64, 2 x 16 x 16 results of 128 channels: no more than twice XLA's root mean square."""
    x, kernel, y = drawn((2, size, size, 128), (3, 3, 128, 128), (2, 16, 16, 128), dtype=np.float32)

    def all_three(function):
        value, pull = jax.vjp(function, x, kernel)
        return value, *pull(y)

    with jax.enable_x64(True):
        x, kernel, y = (array.astype(np.float64) for array in (x, kernel, y))
        exact = [np.asarray(array) for array in all_three(xlas)]
    x, kernel, y = (array.astype(np.float32) for array in (x, kernel, y))

    def error(function):
        return [float(np.sqrt(((a - b) ** 2).mean())) for a, b in zip(all_three(function), exact, strict=True)]

    for one, other in zip(error(ours), error(xlas), strict=True):
        assert 0 < one < 2 * other


@pytest.mark.parametrize(
    ("ours", "xlas", "batch", "rtol"), [(conv3x3, theirs, 2, 1e-12), (enlarged_conv3x3, of_enlarged, 4, 1e-11)]
)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, None), (0, 3)])
def test_vmap(x64, axes, ours, xlas, batch, rtol):
    """Of values and of both gradients, images and kernels with and without the new axis."""
    arrays = drawn((batch, 6, 4, 3), (3, 3, 3, 5))
    x, kernel = (
        array if axis is None else np.stack([array, 2 * array, array**2], axis)
        for array, axis in zip(arrays, axes, strict=True)
    )

    def all_three(function):
        def one(x, kernel):
            return function(x, kernel), jax.grad(lambda *xk: (function(*xk) ** 2).sum(), (0, 1))(x, kernel)

        return jax.vmap(one, axes)(x, kernel)

    for one, other in zip(jax.tree.leaves(all_three(ours)), jax.tree.leaves(all_three(xlas)), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol)


@pytest.mark.parametrize(("convolve", "size", "atol"), [(conv3x3, 6, 1e-4), (enlarged_conv3x3, 8, 6e-3)])
def test_a_shard_map_adds_the_gradients_of_a_shared_kernel(convolve, size, atol):
    """With images spread over four devices; `check_vma` is what follows which array differs between them.

    The gradients of the enlarged images reach 6000: a millionth of that is their tolerance.
    """
    x, kernel = drawn((4, size, size, 3), (3, 3, 3, 5), dtype=np.float32)

    def slope(kernel, x):
        return jax.grad(lambda kernel: (convolve(x, kernel) ** 2).sum())(kernel)

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    spread = jax.shard_map(slope, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=True)
    np.testing.assert_allclose(jax.jit(spread)(kernel, x), slope(kernel, x), rtol=1e-5, atol=atol)


def lowered(function, *arrays, platform):
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("ours", "xlas"), [(conv3x3, theirs), (enlarged_conv3x3, of_enlarged)])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_what_jax_gives_them(platform, ours, xlas):
    """The same convolutions with the same windows and layouts, in the same order; no product of matrices."""
    x, kernel = drawn((2, 16, 16, 128), (3, 3, 128, 128), dtype=np.float32)

    def windows(function):
        slope = jax.grad(lambda *xk: (function(*xk) ** 2).sum(), (0, 1))
        text = lowered(slope, x, kernel, platform=platform)
        assert "dot_general" not in text
        return re.findall(r"dim_numbers = .*", re.sub(r" loc\(.*?\)", "", text))

    assert windows(ours) == windows(xlas)
    assert len(windows(ours)) == 3


def test_cpus_get_products_of_matrices_where_they_pay():
    many, few = (2, 16, 16, 128), (1, 16, 16, 128)

    def products(shape, convolve=conv3x3, results=128):
        arrays = drawn(shape, (3, 3, 128, results), dtype=np.float32)
        return lowered(convolve, *arrays, platform="cpu").count("stablehlo.dot_general")

    assert products(many) == 4  # each of four entries
    assert products(few) == products(many, strided()) == products((2, 15, 16, 128)) == 0
    assert products((1, 9, 8, 128), enlarged_conv3x3) == 3  # each of three
    assert products((1, 7, 8, 128), enlarged_conv3x3) == 0
    assert products(few, results=8) == 1  # the other numbers are its shifts
    assert products(few, results=9) == 0


def layouts(function, *arrays):
    """Of the convolutions that XLA compiles."""
    return set(re.findall(r"dim_labels=(\S+?)[,\s]", jax.jit(function).lower(*arrays).compile().as_text()))


def test_gradients_in_a_loop_are_convolutions_in_the_fast_layout():
    """XLA mends the layout of its own gradients outside of loops only: inside it computes them by a plain loop."""
    x, kernel = drawn((3, 2, 8, 8, 16), (3, 3, 16, 16), dtype=np.float32)

    def total(function):
        def add(total, x):
            return total + jax.grad(lambda kernel: (function(x, kernel) ** 2).sum())(kernel), None

        return lambda x: jax.lax.scan(add, jnp.zeros_like(kernel), x)[0]

    fast = {"b01f_01io->b01f"}
    assert layouts(total(conv3x3), x) <= fast
    assert not layouts(total(theirs), x) <= fast
    np.testing.assert_allclose(jax.jit(total(conv3x3))(x), jax.jit(total(theirs))(x), rtol=1e-4, atol=1e-3)


@pytest.mark.exhaustive
def test_a_backward_pass_keeps_no_tiles(monkeypatch):
    """Tiles take four times the memory of their image; kept from the forward pass, those of all layers at once."""
    layers = 3
    x, kernels = drawn((2, 32, 32, 128), (layers, 3, 3, 128, 128), dtype=np.float32)

    def loss(kernels):
        h = x
        for kernel in kernels:
            h = jnp.tanh(conv3x3(h, kernel))
        return h.sum()

    def megabytes():
        compiled = jax.jit(jax.grad(loss)).lower(list(kernels)).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    apart = megabytes()
    monkeypatch.setattr(winograd, "_after", lambda gradient, x: x)
    jax.clear_caches()
    assert megabytes() > apart + (layers - 1) * 2  # MiB: half of what the tiles of a further layer take
    jax.clear_caches()


@pytest.mark.parametrize(
    ("stride", "padding", "size", "channels", "products"),
    [
        (1, SAME, (2, 6, 7), (32, 40), 9),
        (1, DOWN, (1, 5, 4), (32, 40), 9),
        (2, DOWN, (2, 6, 8), (32, 40), 9),
        (1, SAME, (1, 64, 64), (128, 128), 4),  # Winograd's, of many pixels
    ],
)
def test_of_bfloat16_it_is_rounded_once(stride, padding, size, channels, products):
    """On CPUs by products that add up in float32; other devices have XLA's convolution."""
    x, kernel = (jnp.asarray(array, jnp.bfloat16) for array in drawn((*size, channels[0]), (3, 3, *channels)))

    def by(convolve):
        return lambda x, kernel: convolve(x, kernel, stride, padding)

    ours = by(conv3x3)
    exact = np.asarray(by(theirs)(*(array.astype(jnp.float32) for array in (x, kernel))))
    found = np.asarray(jax.jit(ours)(x, kernel), np.float32)
    half = 2.0 ** (np.floor(np.log2(np.abs(exact) + 1e-9)) - 8)  # of the spacing of bfloat16
    assert (np.abs(found - exact) <= half + 1e-4).all()
    assert lowered(ours, x, kernel, platform="cpu").count("stablehlo.dot_general") == products
    assert "dot_general" not in lowered(ours, x, kernel, platform="tpu")
    changes = (jax.grad(lambda x, f=f: f(x, kernel).astype(jnp.float32).sum())(x) for f in (ours, by(theirs)))
    np.testing.assert_allclose(*(np.float32(change) for change in changes), rtol=2**-5, atol=2**-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layers_are_those_of_flax(dtype):
    """The same parameters, by name and shape, and the same results."""
    image, sequence = drawn((2, 6, 6, 8), (2, 9, 8), dtype=np.float32)
    ones = nn.initializers.ones
    for x, ours, flax in (
        (image, Convolution(5, dtype, strided(DOWN), ones), nn.Conv(5, (3, 3), 2, DOWN, dtype=dtype)),
        (image, Convolution(5, dtype, of_patches, ones, (2, 2)), nn.Conv(5, (2, 2), 2, dtype=dtype)),
        (sequence, Convolution(5, dtype, of_neighbours, ones, (7,)), nn.Conv(5, 7, dtype=dtype)),
        (image, Dense(5, dtype=dtype), nn.Dense(5, dtype=dtype)),
    ):
        variables = flax.init(jax.random.key(0), x)
        variables["params"]["bias"] += jnp.arange(5.0)
        assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
        got, expected = ours.apply(variables, x), flax.apply(variables, x)
        assert got.dtype == expected.dtype == dtype
        np.testing.assert_allclose(got.astype(np.float32), expected.astype(np.float32), rtol=1e-6, atol=1e-6)


def test_convolutions_of_some_neighbours():
    """As shifts and one product, which CPUs take, and as XLA's, with gradients; windows may lie beside the pixel."""
    rng = np.random.default_rng(0)
    for places in (((-1, -1), (-1, 0), (-1, 1), (0, -1)), ((0, -2), (0, -1)), ((-2, 1), (1, 0))):
        x, kernel = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(len(places), 3, 2))
        expected = np.zeros((2, 4, 5, 2))
        for weights, (row, column) in zip(kernel, places, strict=True):
            padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
            expected += padded[:, 2 + row : 6 + row, 2 + column : 7 + column] @ weights

        @jax.jit
        def found(x, kernel, places=places):
            def seen(convolve):
                value, pull = jax.vjp(partial(convolve, places=places), x, kernel)
                return value, pull(jnp.cos(value))

            return [seen(convolve) for convolve in (of_places, of_shifts, of_window)]

        ours, *others = found(jnp.float32(x), jnp.float32(kernel))
        np.testing.assert_allclose(ours[0], expected, atol=1e-5)
        for other in others:
            jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), ours, other)
