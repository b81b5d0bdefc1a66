"""Products of bfloat16 are added up in float32 and rounded once; their derivatives are those of JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffusion_jax.models.blocks.layers import Dense
from diffusion_jax.models.ops import products

NUMBERS = (((2,), (1,)), ((0,), (0,)))  # a product of matrices for each of a batch


def drawn(dtype=jnp.bfloat16):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=size), dtype) for size in ((3, 5, 64), (3, 64, 7)))


def test_it_is_the_exact_product_rounded_once():
    x, y = drawn()
    exact = np.asarray(x, np.float64) @ np.asarray(y, np.float64)
    found = jax.jit(lambda x, y: products.dot_general(x, y, NUMBERS))(x, y)
    assert found.dtype == jnp.bfloat16
    spacing = 2.0 ** (np.floor(np.log2(np.abs(exact))) - 7)
    assert (np.abs(np.asarray(found, np.float64) - exact) <= 0.5 * spacing + 1e-5).all()
    # Control: what adds up in bfloat16 is further off.
    one_by_one = jnp.zeros(exact.shape, jnp.bfloat16)
    for i in range(64):
        one_by_one = one_by_one + x[:, :, i, None] * y[:, None, i]
    assert (np.abs(np.asarray(one_by_one, np.float64) - exact) > 0.5 * spacing + 1e-5).any()


@pytest.mark.parametrize(("platform", "result"), [("cpu", "f32"), ("tpu", "bf16"), ("cuda", "bf16")])
def test_the_program_of_a_cpu_has_a_product_with_float32_results(platform, result):
    """And others have the one that JAX gives them."""
    x, y = drawn()
    traced = jax.jit(lambda x, y: products.dot_general(x, y, NUMBERS)).trace(x, y)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    (line,) = (line for line in program.splitlines() if "dot_general" in line)
    assert "tensor<3x5x64xbf16>" in line
    assert line.endswith(f"tensor<3x5x7x{result}>")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_other_types_are_left_alone(dtype):
    x, y = drawn(dtype)
    np.testing.assert_array_equal(products.dot_general(x, y, NUMBERS), lax.dot_general(x, y, NUMBERS))
    assert products.dot_general(x, y, NUMBERS).dtype == dtype


def test_derivatives_are_those_of_jax():
    x, y = drawn()
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5, 7)), jnp.bfloat16)
    ways = [lambda x, y, f=f: f(x, y, NUMBERS) for f in (products.dot_general, lax.dot_general)]
    ours, theirs = (jax.jit(lambda x, y, way=way: jax.vjp(way, x, y)[1](weights))(x, y) for way in ways)
    for found, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(found, wanted)
    (_, found), (_, wanted) = (jax.jit(lambda way=way: jax.jvp(way, (x, y), (y[:, :5, :1] + x, y)))() for way in ways)
    np.testing.assert_array_equal(found, wanted)


def test_dense_layers_have_it():
    layer, (x, _) = Dense(7, dtype=jnp.bfloat16), drawn()
    params = layer.init(jax.random.key(0), x)
    program = jax.jit(layer.apply).lower(params, x).as_text()
    assert [line.endswith("xf32>") for line in program.splitlines() if "dot_general" in line] == [True]
