"""Attention, in turn and together, against JAX's own; and its derivative, against that of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.ops import attention

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("many", [1, attention.MANY])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_is_jaxs(monkeypatch, dtype, many):
    """In turn and together, with other lengths of queries and keys; and derivatives both ways."""
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, n, 3, 4)), dtype) for n in (8, 6, 6))
    together = jax.nn.dot_product_attention(query, key, value)
    monkeypatch.setattr(attention, "MANY", many)
    text = str(jax.make_jaxpr(lambda *arrays: attention.by_xla(*arrays))(query, key, value))
    assert ("length=6" in text) == (many == 1)  # two examples, three heads
    atol = 1e-6 if dtype == jnp.float32 else 2e-2
    ours = np.asarray(attention.by_xla(query, key, value), np.float32)
    np.testing.assert_allclose(ours, np.asarray(together, np.float32), atol=atol)
    for derive in (jax.jacrev, jax.jacfwd):
        ours, theirs = (
            derive(lambda query, f=f: f(query, key, value).astype(jnp.float32).sum((1, 3)))(query)
            for f in (attention.by_xla, jax.nn.dot_product_attention)
        )
        np.testing.assert_allclose(np.asarray(ours, np.float32), np.asarray(theirs, np.float32), atol=atol)


def test_the_derivative_of_attention_is_that_of_its_formula(x64):
    """By all three arguments, forward, backward and of second order, to rounding."""
    noise = np.random.default_rng(0)
    arrays = tuple(jnp.asarray(noise.normal(size=(2, 3, n, 4))) for n in (8, 6, 6))
    directions = tuple(jnp.asarray(noise.normal(size=x.shape)) for x in arrays)

    def formula(query, key, value):
        return jax.nn.softmax(query @ key.swapaxes(2, 3) / 2) @ value

    def everything(function):
        def slope(*arrays):
            return jax.grad(lambda *x: (function(*x) ** 3).sum(), (0, 1, 2))(*arrays)

        return jax.jvp(function, arrays, directions), slope(*arrays), jax.jvp(slope, arrays, directions)[1]

    got, expected = everything(attention.softmax_attention), everything(formula)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13 * float(jnp.abs(theirs).max()))


def test_a_bias_hides_and_moves(x64):
    """Hidden keys may as well not be there, a bias is added to the scaled products, and nothing seen is the mean."""
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, n, 3, 4))) for n in (8, 6, 6))
    plain = attention.by_xla(query, key, value)
    zero = attention.biased(jnp.zeros((1, 1, 1, 1)))
    np.testing.assert_allclose(zero(query, key, value), plain, atol=1e-14)
    first = attention.biased(attention.hiding(jnp.arange(6) < 4)[None, None, None])
    cut = attention.by_xla(query, key[:, :4], value[:, :4])
    np.testing.assert_allclose(first(query, key, value), cut, atol=1e-14)
    none = attention.biased(attention.hiding(jnp.zeros((1, 1, 1, 6), bool)))
    mean = jnp.broadcast_to(value.mean(1, keepdims=True), plain.shape)
    np.testing.assert_allclose(none(query, key, value), mean, atol=1e-14)

    bias = rng.normal(size=(2, 3, 8, 6))
    scores = 0.7 * np.einsum("bnhd,blhd->bhnl", query, key) + bias
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    found = attention.biased(jnp.asarray(bias), scale=0.7)(query, key, value)
    np.testing.assert_allclose(found, np.einsum("bhnl,blhd->bnhd", weights, value), atol=1e-14)
