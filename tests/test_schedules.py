import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import schedules
from diffusion_jax.errors import InputError

TABLES = [
    schedules.linear_betas,
    schedules.quadratic_betas,
    schedules.constant_betas,
    schedules.sigmoid_betas,
    schedules.cosine_betas,
]


def test_the_linear_table_has_the_published_values():
    schedule = schedules.from_betas(schedules.linear_betas(1000))
    alpha_bar = schedule.alpha(np.array([1, 500, 1000]) / 1000) ** 2
    np.testing.assert_allclose(alpha_bar, [0.9999, 0.0785872, 4.03583e-5], rtol=2e-6)


def test_the_cosine_table_has_the_published_values():
    betas = schedules.cosine_betas(1000)
    np.testing.assert_allclose(betas[[0, -1]], [4.12842e-5, 0.999], rtol=2e-6)


@pytest.mark.parametrize("betas", TABLES)
def test_a_table_preserves_variance_and_destroys_the_signal_monotonically(betas):
    schedule = schedules.from_betas(betas(200))
    t = np.arange(201) / 200
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-14)
    assert alpha[0] == 1
    assert sigma[0] == 0
    assert (np.diff(schedules.log_snr(schedule, t[1:])) < 0).all()
    # Equation 4: each step multiplies what is left of the signal by sqrt(1 - beta).
    np.testing.assert_allclose(1 - (alpha[1:] / alpha[:-1]) ** 2, betas(200), rtol=1e-9)


def test_sigma_is_exact_where_alpha_is_nearly_one():
    schedule = schedules.from_betas(np.full(3, 1e-9))
    np.testing.assert_allclose(schedule.sigma(np.array([1, 2, 3]) / 3) ** 2, [1e-9, 2e-9, 3e-9], rtol=1e-8)


def test_numpy_times_are_looked_up_in_float64_and_traced_times_in_the_same_table():
    schedule = schedules.from_betas(schedules.linear_betas(1000))
    t = np.arange(1001) / 1000
    assert schedule.alpha(t).dtype == np.float64
    traced = schedule.alpha(jnp.asarray(t, jnp.float32))
    assert traced.dtype == jnp.float32
    np.testing.assert_array_equal(traced, schedule.alpha(t).astype(np.float32))


@pytest.mark.parametrize("t", [0.12345, -0.001, 1.001, float("nan")])
def test_a_time_off_the_table_is_refused(t):
    schedule = schedules.from_betas(schedules.linear_betas(1000))
    with pytest.raises(InputError, match="not on the schedule's table"):
        schedule.alpha(t)


@pytest.mark.parametrize("betas", [[0.1, 0.0], [0.1, 1.0], [-0.1], [], [[0.1]], [float("nan")]])
def test_bad_betas_are_refused(betas):
    with pytest.raises(InputError):
        schedules.from_betas(betas)
