"""Bottlenecks of real numbers: what passes, and where gradients go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import bottlenecks
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError

K = 2
# No ties; ties about the k-th; after a ReLU more zeros than places.
H = np.array([[3.0, -1, 2, 5], [1, 2, 1, 1], [0, 0, 0, 4]])
KEPT = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]])


def threshold(h):
    """The control: all that reach the k-th largest."""
    return jnp.where(h >= jnp.sort(h, axis=1)[:, -K, None], h, 0)


@pytest.mark.usefixtures("x64")
def test_exactly_k_pass_and_gradient_reaches_no_other():
    def slope(keep, h):
        return jax.jit(jax.grad(lambda h: jnp.sum(keep(h) * jnp.arange(1.0, 5.0))))(h)

    def keep(h):
        return bottlenecks.top_k(K)(None, None, Gaussian(h)).z

    np.testing.assert_array_equal(jax.jit(keep)(H), H * KEPT)
    np.testing.assert_array_equal(slope(keep, H), KEPT * np.arange(1.0, 5.0))
    # Behind a ReLU, of whose zeros a threshold keeps all.
    np.testing.assert_array_equal(slope(threshold, H)[1:] != 0, np.ones((2, 4)))
    np.testing.assert_array_equal(slope(lambda h: keep(jax.nn.relu(h)), H - 1)[2], [0, 0, 0, 4.0])


def test_all_units_may_be_kept_and_others_numbers_are_refused():
    np.testing.assert_array_equal(bottlenecks.k_largest(jnp.asarray(H), 4), H)
    for k in (0, 5):
        with pytest.raises(InputError, match=f"{k} of 4 units cannot be kept; give 1 to 4"):
            bottlenecks.k_largest(jnp.asarray(H), k)


def test_a_certain_code_costs_nothing_and_a_drawn_one_its_divergence():
    """Seed 0, 20,000 draws: moments within 5 standard errors (false alarms: 6e-7 each)."""
    mean, var, draws = 0.5, 0.3, 20_000
    free = bottlenecks.mean(None, None, Gaussian(jnp.asarray(H)))
    assert not np.any([free.rate, free.cost])
    np.testing.assert_array_equal(free.z, H)
    q = Gaussian(jnp.full((draws, 2), mean), jnp.full((draws, 2), var))
    code = bottlenecks.sampled(None, jax.random.split(jax.random.key(0), draws), q)
    np.testing.assert_allclose(code.rate, mean**2 + var - 1 - np.log(var), rtol=1e-5)  # 2 numbers, halved
    z = np.asarray(code.z, np.float64)
    assert abs(z.mean() - mean) < 5 * (var / z.size) ** 0.5
    assert abs(z.var() - var) < 5 * var * (2 / z.size) ** 0.5
