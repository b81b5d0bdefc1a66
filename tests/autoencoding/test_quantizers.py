"""Discrete bottlenecks: each gradient against its closed form, each formula over all of its values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import quantizers
from diffusion_jax.autoencoding.codes import total
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError

B, P, K, D, BETA = 4, 5, 3, 2, 0.25
KEYS = jax.random.split(jax.random.key(0), B)
draw = np.random.default_rng(0).normal
Z, CODES, SLOPE = draw(size=(B, P, D)), draw(size=(K, D)), draw(size=(B, P, D))
sg = jax.lax.stop_gradient


@pytest.fixture(autouse=True)
def ranks():
    """Nothing is broadcast by accident."""
    with jax.numpy_rank_promotion("raise"):
        yield


def by_hand():
    """Indices, and the gradients of the mean over examples of both terms: by the vectors and by the codes."""
    indices = ((Z[:, :, None] - CODES) ** 2).sum(-1).argmin(-1)
    one = np.eye(K)[indices]
    of_codes = 2 * (one.sum((0, 1))[:, None] * CODES - np.einsum("bpk,bpd->kd", one, Z)) / B
    return indices, 2 * (Z - CODES[indices]) / B, of_codes


def slopes(bottleneck):
    """Gradients by z and by the codes of the cost and of what the decoder makes of z, each the mean over examples."""

    def cost(z, codes):
        return bottleneck({"codes": codes}, KEYS, Gaussian(z)).cost.mean()

    def decoded(z, codes):
        return (bottleneck({"codes": codes}, KEYS, Gaussian(z)).z * SLOPE).sum(axis=(1, 2)).mean()

    @jax.jit
    def both(z, codes):
        return *jax.grad(cost, (0, 1))(z, codes), *jax.grad(decoded, (0, 1))(z, codes)

    return [np.asarray(x) for x in both(Z, CODES)]


def of_params(params):
    return params["codes"]


def made_before(params, keys, q):
    """Control: the terms of what passes, instead of what the encoder says."""
    codes = params["codes"][quantizers.nearest(q.mean, params["codes"])]
    passed = q.mean + sg(codes - q.mean)
    cost = total((sg(q.mean) - passed) ** 2) + BETA * total((q.mean - sg(passed)) ** 2)
    return quantizers.Code(passed, cost, cost, codes)


def other_side(params, keys, q):
    """Control: beta on the term of the codes."""
    codes = params["codes"][quantizers.nearest(q.mean, params["codes"])]
    cost = BETA * total((sg(q.mean) - codes) ** 2) + total((q.mean - sg(codes)) ** 2)
    return quantizers.Code(quantizers.straight_through(q.mean, codes), cost, cost, codes)


def far(found, expected):
    return max(float(abs(a - b).max()) for a, b in zip(found, expected, strict=True))


def test_each_term_moves_its_own_side(x64):
    indices, of_z, of_codes = by_hand()
    expected = BETA * of_z, of_codes, SLOPE / B, np.zeros_like(CODES)
    bottleneck = quantizers.vector_quantized(of_params, BETA)
    assert far(slopes(bottleneck), expected) < 1e-12
    found = bottleneck({"codes": jnp.asarray(CODES)}, KEYS, Gaussian(jnp.asarray(Z)))
    np.testing.assert_array_equal(found.kept, indices)
    np.testing.assert_array_equal(found.z, CODES[indices])  # not to rounding: exactly what is looked up
    np.testing.assert_array_equal(quantizers.looked_up(of_params)({"codes": CODES}, found.kept), found.z)
    squared = ((Z - CODES[indices]) ** 2).sum((1, 2))
    np.testing.assert_allclose(found.cost, (1 + BETA) * squared, rtol=1e-12)
    np.testing.assert_allclose(found.info["commitment"], squared, rtol=1e-12)
    np.testing.assert_allclose(found.rate, P * np.log(K), rtol=1e-6)
    # Controls. One trains no code at all; the other has the same value, and pulls the encoder four times as much.
    before = slopes(made_before)
    assert np.abs(before[1]).max() == 0
    assert np.abs(before[3]).max() == 0
    assert far(slopes(other_side), expected) > 0.1
    np.testing.assert_allclose(
        other_side({"codes": jnp.asarray(CODES)}, KEYS, Gaussian(jnp.asarray(Z))).cost, found.cost, rtol=1e-12
    )


def test_of_equal_distances_the_first_and_in_full_precision():
    codes = jnp.array([[1.0, 0], [-1, 0], [1, 0], [0, 4]])
    np.testing.assert_array_equal(
        quantizers.nearest(jnp.array([[0.0, 0], [1, 0], [-2, 1], [0, 3]]), codes), [0, 0, 1, 3]
    )
    # 256 + k are not all numbers of bfloat16: in that precision neighbours are one.
    line = 256 + jnp.arange(64.0)[:, None]
    np.testing.assert_array_equal(quantizers.nearest(line, line), np.arange(64))
    assert quantizers.nearest(line.astype(jnp.bfloat16), line).max() > 60
    products = jax.make_jaxpr(quantizers.nearest)(line.astype(jnp.bfloat16), line).pretty_print()
    assert "HIGHEST" in products
    assert "f32[64,64] = dot_general" in products


@pytest.mark.parametrize("codes", [(0, D), (K, 0), (K, D + 1), (K,)], ids=str)
def test_a_codebook_that_cannot_be_is_refused(codes):
    with pytest.raises(InputError, match=r"a codebook \[.*\] for vectors of 2 numbers; make it \[K, 2\]"):
        quantizers.nearest(jnp.asarray(Z), jnp.zeros(codes))


@pytest.mark.parametrize("beta", [-1.0, np.nan, np.inf])
def test_a_weight_that_cannot_be_is_refused(beta):
    with pytest.raises(InputError, match="weighed by beta="):
        quantizers.vector_quantized(of_params, beta)


# ---- The rotation trick.


@jax.jit
def turned(z, e):
    """What passes for each row, and its Jacobians by z and by e."""
    slope = jax.vmap(jax.jacrev(quantizers.rotated, (0, 1)))(z, e)
    return quantizers.rotated(z, e), *slope


def test_a_rotation_takes_the_vector_to_its_code(x64):
    """Forward exactly; the Jacobian is |e| / |z| times a rotation that takes one direction to the other."""
    z, e = draw(size=(20, 4)), draw(size=(20, 4))
    values, jacobians, by_code = turned(z, e)
    np.testing.assert_array_equal(values, e)
    np.testing.assert_array_equal(by_code, 0)
    stretch = np.linalg.norm(e, axis=1) / np.linalg.norm(z, axis=1)
    turns = jacobians / stretch[:, None, None]
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(4), turns.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1, rtol=1e-12)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", jacobians, z), e, atol=1e-12)
    # What is orthogonal to both stays as it is.
    plane = np.stack([z, e], axis=1)
    normal = np.linalg.svd(plane)[2][:, -1]
    np.testing.assert_allclose(np.einsum("nij,nj->ni", turns, normal), normal, atol=1e-12)
    # Control: the other way passes the gradient as it is.
    np.testing.assert_array_equal(jax.jit(jax.jacrev(quantizers.straight_through))(z[0], e[0]), np.eye(4))


def test_a_rotation_is_finite_where_it_is_not_defined():
    z = jnp.array([[1.0, 2], [0, 0], [1, 2], [0, 0], [1e-30, 0], [3, 4]])
    e = jnp.array([[-2.0, -4], [1, 1], [0, 0], [0, 0], [1, 0], [-3, -4 - 1e-6]])
    values, jacobians, _ = turned(z, e)
    np.testing.assert_array_equal(values, e)
    assert np.isfinite(jacobians).all()
    opposed, nowhere, to_nothing, both, _, nearly = jacobians
    np.testing.assert_allclose(opposed @ z[0], e[0], rtol=1e-6)
    np.testing.assert_allclose(nearly @ z[5], e[5], rtol=1e-5)
    np.testing.assert_array_equal(nowhere, np.eye(2))
    np.testing.assert_array_equal(both, np.eye(2))
    np.testing.assert_array_equal(to_nothing, np.zeros((2, 2)))


# ---- Finite scalar quantisation.

LEVELS = [(8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 6, 5), (3,), (2, 4)]


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_indices_and_codes_are_one_to_one(levels):
    size = np.prod(levels)
    every = np.arange(size).reshape(1, -1)
    codes = quantizers.on_grid(levels)({}, jnp.asarray(every))
    assert len(np.unique(codes[0], axis=0)) == size
    for axis, level in enumerate(levels):  # 0 is among them; of an even number one more lies below
        np.testing.assert_allclose(
            np.unique(codes[..., axis]), (np.arange(level) - level // 2) / (level // 2), rtol=1e-6
        )
    # What rounds to each code: the inverse of the bound, at its middle.
    half = np.subtract(levels, 1) * 1.001 / 2
    offset = np.where(np.mod(levels, 2) == 0, 0.5, 0.0)
    middle = np.asarray(codes, np.float64) * np.floor_divide(levels, 2)
    z = np.arctanh((middle + offset) / half) - np.arctanh(offset / half)
    found = quantizers.finite_scalar(levels)({}, KEYS[:1], Gaussian(jnp.asarray(z, jnp.float32)))
    np.testing.assert_array_equal(found.kept, every)
    assert found.kept.dtype == jnp.int32
    np.testing.assert_allclose(found.z, codes, rtol=1e-6)
    np.testing.assert_allclose(found.rate, size * np.log(size), rtol=1e-6)
    np.testing.assert_array_equal(found.cost, 0)


def test_scalars_pass_the_gradient_of_their_bound():
    """d tanh(z + s) h / (L // 2), as if nothing had been rounded; half precision is rounded in float32."""
    levels = (8, 5)
    z = jnp.asarray(Z, jnp.float32)

    def passed(z):
        return quantizers.finite_scalar(levels)({}, KEYS, Gaussian(z)).z

    half, shift = np.array([7, 4]) * 1.001 / 2, np.array([np.arctanh(0.5 / (7 * 1.001 / 2)), 0])
    expected = half / np.array([4, 2]) / np.cosh(Z + shift) ** 2 * SLOPE
    found = jax.grad(lambda z: (passed(z) * SLOPE).sum())(z)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert passed(z.astype(jnp.bfloat16)).dtype == jnp.float32


def test_levels_that_cannot_be_are_refused():
    for levels, said in {(8, 1): "none below 2", (): "at least one", (2**16, 2**15): "make 2.15e"}.items():
        for function in (quantizers.finite_scalar, quantizers.on_grid):
            with pytest.raises(InputError, match=said):
                function(levels)
    with pytest.raises(InputError, match="3 levels for vectors of 2 numbers; give one for each"):
        quantizers.finite_scalar((3, 3, 3))({}, KEYS, Gaussian(jnp.asarray(Z)))


# ---- How many codes are used.


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_perplexity_is_the_number_of_codes_that_are_used_alike(kind):
    indices = kind(np.repeat([0, 2, 5], 100).reshape(3, 4, 25))
    counts = quantizers.counted(indices, 8)
    np.testing.assert_array_equal(counts, [100, 0, 100, 0, 0, 100, 0, 0])
    np.testing.assert_allclose(quantizers.perplexity(counts), 3, rtol=1e-6)
    assert quantizers.perplexity(quantizers.counted(indices[0], 8)) == pytest.approx(1)  # of a batch alone
    np.testing.assert_allclose(quantizers.perplexity(kind(np.array([3.0, 1]))), 4 / 3**0.75, rtol=1e-6)
