"""Latents: scaled and back, drawn, decoded in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import latents
from diffusion_jax.autoencoding.latents import Scaling


@pytest.mark.parametrize("scaling", [Scaling(0.18215), Scaling(np.array([0.5, 2.0]), np.array([1.0, -3.0]))])
def test_scaling_has_its_inverse(scaling, x64):
    z = jax.random.normal(jax.random.key(0), (3, 4, 4, 2), jnp.float64)
    assert jnp.abs(scaling.unscaled(scaling.scaled(z)) - z).max() < 1e-14


def test_statistics_make_latents_of_unit_variance():
    z = np.random.default_rng(0).normal(3.0, [2.0, 5.0], (500, 4, 4, 2))
    found = latents.statistics(z)
    assert abs((z / found.std).std() - 1) < 1e-12
    each = Scaling(1 / found.channel_std, found.channel_mean).scaled(z)
    np.testing.assert_allclose(each.std((0, 1, 2)), 1, atol=1e-12)
    np.testing.assert_allclose(each.mean((0, 1, 2)), 0, atol=1e-12)


@pytest.mark.parametrize(("most", "count"), [(2**20, 6), (2 * 64, 2), (5 * 64, 3), (1, 1)])
def test_a_batch_is_decoded_in_turn(most, count):
    seen = []

    def decode(params, z):
        seen.append(len(z))
        return params * z.repeat(8, axis=1).repeat(8, axis=2)

    z = jax.random.normal(jax.random.key(0), (6, 1, 1, 3))
    found = jax.jit(latents.few_at_a_time(decode, most))(2.0, z)
    assert (found == decode(2.0, z)).all()
    assert seen[-2] == count  # the last call is this test's own
