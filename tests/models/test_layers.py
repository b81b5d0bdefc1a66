"""The building blocks, one by one, against closed forms and counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.layers import (
    AttentionBlock,
    Downsample,
    Dropout,
    LayerContext,
    ResBlock,
    Upsample,
    group_norm,
    sinusoid,
)


def test_sinusoid_is_its_closed_form():
    time = np.array([0, 1, 500, 999])
    angles = time[:, None] * 10000.0 ** (-np.arange(64) / 63)  # float64
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    got = sinusoid(jnp.asarray(time), 128)
    assert got.dtype == jnp.float32
    # An angle of 999 has 3e-5 between neighbours in float32, and the frequency its own rounding.
    np.testing.assert_allclose(got, expected, atol=2e-4)
    np.testing.assert_array_equal(got, sinusoid(jnp.asarray(time, jnp.float32), 128))


@pytest.mark.parametrize("features", [2, 7])
def test_sinusoid_refuses_what_it_cannot_embed(features):
    with pytest.raises(InputError, match="even number"):
        sinusoid(jnp.zeros(1), features)


def test_downsample_pads_at_the_bottom_right_and_upsample_repeats():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    # A kernel of its last corner alone reads two rows and columns further on: 2 and 4, and 4 is padding.
    last = jnp.zeros((3, 3, 1, 1)).at[2, 2].set(1.0)
    down = Downsample().apply({"params": {"conv": {"kernel": last, "bias": jnp.zeros(1)}}}, x)
    np.testing.assert_array_equal(down[0, :, :, 0], [[10, 0], [0, 0]])
    centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    up = Upsample().apply({"params": {"conv": {"kernel": centre, "bias": jnp.zeros(1)}}}, x)
    np.testing.assert_array_equal(up[0, :, :, 0], np.kron(np.arange(16.0).reshape(4, 4), np.ones((2, 2))))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_group_norm_has_float32_statistics(dtype):
    """Where the mean is 64 deviations, against float64; E[x^2] - E[x]^2 and sums in bfloat16 miss this."""
    rng = np.random.default_rng(0)
    x = np.asarray(jnp.asarray(256 + 4 * rng.normal(size=(2, 8, 8, 8)), dtype))
    x = np.asarray(np.round((x.astype(np.float64) - 256) / 2) * 2 + 256)  # even numbers: exact in bfloat16
    grouped = x.reshape(2, 64, 2, 4)
    mean, var = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(var + 1e-6)).reshape(x.shape)
    variables = {"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}
    got = group_norm(2, dtype, None).apply(variables, jnp.asarray(x, dtype))
    assert got.dtype == dtype
    atol = 1e-2 if dtype == jnp.bfloat16 else 1e-5  # the result itself is rounded to bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, atol=atol)


def test_group_norm_has_epsilon_1e_6():
    """Seen where the variance is as small: 1e-5, also common, would halve this result."""
    x = 1e-3 * np.random.default_rng(0).normal(size=(1, 8, 8, 4))
    variables = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
    got = group_norm(1, jnp.float32, None).apply(variables, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, (x - x.mean()) / np.sqrt(x.var() + 1e-6), atol=1e-5)


def test_kernels_start_uniform_and_last_ones_at_all_but_zero():
    """Variance 1 / mean(fan in, fan out), bound sqrt(3) deviations; last layers 1e-10 of it."""
    x, embedding = jnp.zeros((1, 4, 4, 32)), jnp.zeros((1, 128))
    res = jax.jit(ResBlock(64).init)(jax.random.key(0), x, LayerContext(embedding))["params"]
    attention = jax.jit(AttentionBlock().init)(jax.random.key(1), x)["params"]
    fans = {
        "conv_0": (res["conv_0"], 9 * (32 + 64) / 2, 1.0),
        "conv_1": (res["conv_1"], 9 * (64 + 64) / 2, 1e-10),
        "time": (res["time"], (128 + 64) / 2, 1.0),
        "shortcut": (res["shortcut"], (32 + 64) / 2, 1.0),
        "query": (attention["query"], 32, 1.0),
        "out": (attention["out"], 32, 1e-10),
    }
    for name, (params, fan, scale) in fans.items():
        z = np.asarray(params["kernel"], np.float64) / np.sqrt(scale / fan)
        assert np.abs(z).max() < np.sqrt(3) * (1 + 1e-6), name
        # The mean of n values z^2 of a uniform variable of variance 1 deviates by sqrt(0.8 / n); 5 of these.
        assert abs((z**2).mean() - 1) < 5 * np.sqrt(0.8 / z.size), name
        assert not params["bias"].any(), name
    np.testing.assert_array_equal(res["norm_0"]["scale"], 1)


class TwoDropouts(nn.Module):
    @nn.compact
    def __call__(self, x, keys):
        return Dropout(0.3, name="first")(x, keys), Dropout(0.3, name="second")(x, keys)


def test_dropout_rate_and_independence():
    """4 x 2^16 draws at rate 0.3: frequencies within 5 binomial deviations, one false alarm in 2 million."""
    x = jnp.ones((4, 2**16))
    keys = jax.random.split(jax.random.key(0), 4)
    first, second = (np.asarray(y) for y in TwoDropouts().apply({}, x, keys))
    np.testing.assert_allclose(first[first != 0], 2**16 / round(0.7 * 2**16), rtol=1e-6)
    assert len(np.unique(first)) == 2

    def near(dropped, probability):
        return abs(dropped.mean() - probability) < 5 * np.sqrt(probability * (1 - probability) / dropped.size)

    for i in range(4):
        assert near(first[i] == 0, 0.3)
    assert near((first == 0) & (second == 0), 0.09)  # layers draw independently of each other
    assert near((first[:3] == 0) & (first[1:] == 0), 0.09)  # and so do neighbours in the batch


def test_what_dropout_keeps_is_divided_by_the_share_that_it_keeps():
    """Rates are rounded to 65536ths, and so is the factor. No rate below 1 drops everything."""
    keys = jax.random.split(jax.random.key(0), 1)
    for rate, dropped in ((0.3, 19661), (1e-6, 0), (1 - 1e-6, 2**16 - 1)):
        y = np.asarray(Dropout(rate).apply({}, jnp.ones((1, 2**20)), keys))
        np.testing.assert_allclose(y.max(), 1 / (1 - dropped / 2**16), rtol=1e-6)


def test_dropout_of_an_example_depends_on_its_key_alone():
    x = jnp.ones((4, 8, 8, 2))
    keys = jax.random.split(jax.random.key(0), 4)
    together = Dropout(0.5).apply({}, x, keys)
    alone = jnp.concatenate([Dropout(0.5).apply({}, x[i : i + 1], keys[i : i + 1]) for i in range(4)])
    np.testing.assert_array_equal(together, alone)


def test_dropout_without_keys_or_rate_draws_nothing():
    x = jnp.ones((2, 4))
    keys = jax.random.split(jax.random.key(0), 2)
    assert not jax.make_jaxpr(lambda: Dropout(0.5).apply({}, x))().eqns
    assert not jax.make_jaxpr(lambda: Dropout(0.0).apply({}, x, keys))().eqns


def test_dropout_refuses_unfit_rates_and_keys():
    with pytest.raises(InputError, match="rate"):
        Dropout(1.0).apply({}, jnp.ones((2, 4)))
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 2)
    with pytest.raises(InputError, match="threefry"):
        Dropout(0.5).apply({}, jnp.ones((2, 4)), keys)
