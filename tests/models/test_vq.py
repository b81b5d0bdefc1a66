"""The networks of VQ-VAE and VQ-VAE-2, and their convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.autoencoders.vq import VQVAE, VQVAE2
from diffusion_jax.models.ops import products


def shapes(model, *size):
    """Of the parameters."""
    return jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, *size))), jax.random.key(0))["params"]


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def said(model, method, *inputs, size):
    """The shape of what a method of `model` gives, of arrays of these shapes."""

    def array(shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    inputs = [jax.tree.map(array, x, is_leaf=lambda x: isinstance(x, tuple)) for x in inputs]
    found = jax.eval_shape(
        lambda params, *x: model.apply({"params": params}, *x, method=method), shapes(model, *size), *inputs
    )
    return found.shape


def test_halving_and_doubling_are_xlas_convolution_and_its_transpose():
    draw = np.random.default_rng(0).normal
    x, kernel, y = draw(size=(2, 6, 10, 3)), draw(size=(4, 4, 3, 5)), draw(size=(2, 3, 5, 5))

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    @jax.jit
    def each(x, kernel, y):
        expected, back = jax.vjp(reference, x, kernel)
        found, our_back = jax.vjp(products.halving, x, kernel)
        doubled = products.doubling(y, kernel.swapaxes(2, 3))
        return (expected, *back(y), back(y)[0]), (found, *our_back(y), doubled)

    for expected, found in zip(*each(*(a.astype(np.float32) for a in (x, kernel, y))), strict=True):
        np.testing.assert_allclose(found, expected, atol=3e-5)


def test_sizes_are_those_of_the_public_implementations():
    """VQ-VAE-2's two levels have 1,388,867 parameters, codebooks apart; VQ-VAE is two sequences of convolutions."""
    assert count(shapes(VQVAE2(3), 256, 256, 3)) == 1_388_867
    inside = 128 * 9 * 32 + 32 + 32 * 128 + 128
    encoder = (16 * 3 * 64 + 64) + (16 * 64 * 128 + 128) + (9 * 128 * 128 + 128) + 2 * inside + (128 * 64 + 64)
    decoder = (9 * 64 * 128 + 128) + 2 * inside + (16 * 128 * 64 + 64) + (16 * 64 * 3 + 3)
    params = shapes(VQVAE(3), 32, 32, 3)
    assert {name: count(part) for name, part in params.items()} == {"encoder": encoder, "decoder": decoder}


@pytest.mark.parametrize("halvings", [1, 2, 4])
def test_a_code_is_halved_and_doubled(halvings):
    model, size = VQVAE(2, 3, halvings, 4, 2, 1), (32, 16, 2)
    code = 32 // 2**halvings, 16 // 2**halvings, 3
    assert said(model, "encode", (5, *size), size=size) == (5, *code)
    assert said(model, "decode", (5, *code), size=size) == (5, *size)


def test_two_levels_have_the_shapes_of_the_paper():
    model, size = VQVAE2(3), (256, 256, 3)
    top, bottom, h = (2, 32, 32, 64), (2, 64, 64, 64), (2, 64, 64, 128)
    assert said(model, "encode_image", (2, *size), size=size) == h
    assert said(model, "encode_top", h, size=size) == top
    assert said(model, "encode_bottom", h, top, size=size) == bottom
    assert said(model, "decode", {"top": top, "bottom": bottom}, size=size) == (2, *size)
    model, size = VQVAE2(3, halvings=(1, 3)), (32, 32, 3)
    assert said(model, "decode", {"top": (1, 2, 2, 64), "bottom": (1, 16, 16, 64)}, size=size) == (1, *size)


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(InputError, match="32x20 cannot be halved 3 times; take sides that 8 divides"):
        shapes(VQVAE(3, halvings=3), 32, 20, 3)
    with pytest.raises(InputError, match="0 halvings; give at least 1"):
        shapes(VQVAE(3, halvings=0), 32, 32, 3)
