"""3x3 convolutions and their derivatives against XLA's own, in double precision; and what is compiled for whom."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffusion_jax.models import winograd
from diffusion_jax.models.convolution import LAYOUT, SAME, conv3x3
from diffusion_jax.models.layers import Convolution, Dense

DOWN = ((0, 1), (0, 1))
NARROW, DEEP, WIDE = (3, 5), (5, 43), (128, 130)  # channels: deep outnumber pixels; wide are Winograd's to filter
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
    x, kernel = drawn((*size, channels[0]), (3, 3, *channels))

    def along(shape):
        return jnp.cos(jnp.arange(np.prod(shape), dtype=float)).reshape(shape)

    got, expected = (
        derivatives(lambda x, kernel, f=f: f(x, kernel, stride, padding), x, kernel, along) for f in (conv3x3, theirs)
    )
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13 * float(jnp.abs(other).max()))


def test_winograds_filtering_rounds_as_a_sum_does():
    """float32 against float64, 2 x 16 x 16 results of 128 channels: no more than twice XLA's root mean square."""
    x, kernel, y = drawn((2, 16, 16, 128), (3, 3, 128, 128), (2, 16, 16, 128), dtype=np.float32)

    def all_three(function):
        value, pull = jax.vjp(function, x, kernel)
        return value, *pull(y)

    with jax.enable_x64(True):
        x, kernel, y = (array.astype(np.float64) for array in (x, kernel, y))
        exact = [np.asarray(array) for array in all_three(theirs)]
    x, kernel, y = (array.astype(np.float32) for array in (x, kernel, y))

    def error(function):
        return [float(np.sqrt(((a - b) ** 2).mean())) for a, b in zip(all_three(function), exact, strict=True)]

    for ours, xlas in zip(error(conv3x3), error(theirs), strict=True):
        assert 0 < ours < 2 * xlas


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, None), (0, 3)])
def test_vmap(x64, axes):
    """Of values and of both gradients, images and kernels with and without the new axis."""
    arrays = drawn((2, 6, 4, 3), (3, 3, 3, 5))
    x, kernel = (
        array if axis is None else np.stack([array, 2 * array, array**2], axis)
        for array, axis in zip(arrays, axes, strict=True)
    )

    def all_three(function):
        def one(x, kernel):
            return function(x, kernel), jax.grad(lambda *xk: (function(*xk) ** 2).sum(), (0, 1))(x, kernel)

        return jax.vmap(one, axes)(x, kernel)

    for one, other in zip(jax.tree.leaves(all_three(conv3x3)), jax.tree.leaves(all_three(theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_shard_map_adds_the_gradients_of_a_shared_kernel():
    """With images spread over four devices; `check_vma` is what follows which array differs between them."""
    x, kernel = drawn((4, 6, 6, 3), (3, 3, 3, 5), dtype=np.float32)

    def slope(kernel, x):
        return jax.grad(lambda kernel: (conv3x3(x, kernel) ** 2).sum())(kernel)

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    spread = jax.shard_map(slope, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=True)
    np.testing.assert_allclose(jax.jit(spread)(kernel, x), slope(kernel, x), rtol=1e-5, atol=1e-4)


def lowered(function, *arrays, platform):
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_what_jax_gives_them(platform):
    """The same convolutions with the same windows and layouts, in the same order; no product of matrices."""
    x, kernel = drawn((2, 16, 16, 128), (3, 3, 128, 128), dtype=np.float32)

    def windows(function):
        slope = jax.grad(lambda *xk: (function(*xk) ** 2).sum(), (0, 1))
        text = lowered(slope, x, kernel, platform=platform)
        assert "dot_general" not in text
        return re.findall(r"dim_numbers = .*", re.sub(r" loc\(.*?\)", "", text))

    assert windows(conv3x3) == windows(theirs)
    assert len(windows(conv3x3)) == 3


def test_cpus_get_products_of_matrices_where_they_pay():
    many, few = (2, 16, 16, 128), (1, 16, 16, 128)

    def products(shape, stride=1):
        arrays = drawn(shape, (3, 3, 128, 128), dtype=np.float32)
        return lowered(lambda *xk: conv3x3(*xk, stride), *arrays, platform="cpu").count("stablehlo.dot_general")

    assert products(many) == 4  # each of four entries
    assert products(few) == products(many, stride=2) == products((2, 15, 16, 128)) == 0


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


def test_a_backward_pass_keeps_no_tiles(monkeypatch):
    """Tiles take four times the memory of their image; kept from the forward pass, those of all layers at once."""
    layers = 6
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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layers_are_those_of_flax(dtype):
    """The same parameters, by name and shape, and the same results."""
    (x,) = drawn((2, 6, 6, 8), dtype=np.float32)
    for ours, flax in (
        (Convolution(5, dtype, 2, DOWN, nn.initializers.ones), nn.Conv(5, (3, 3), 2, DOWN, dtype=dtype)),
        (Dense(5, dtype=dtype), nn.Dense(5, dtype=dtype)),
    ):
        variables = flax.init(jax.random.key(0), x)
        variables["params"]["bias"] += jnp.arange(5.0)
        assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
        got, expected = ours.apply(variables, x), flax.apply(variables, x)
        assert got.dtype == expected.dtype == dtype
        np.testing.assert_allclose(got.astype(np.float32), expected.astype(np.float32), rtol=1e-6, atol=1e-6)
