import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import schedules

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


@pytest.mark.parametrize("betas", [[0.1, 0.0], [1.0, 0.1], [-0.1], [], [[0.1]], [float("nan")]])
def test_bad_betas_are_refused(betas):
    with pytest.raises(InputError):
        schedules.from_betas(betas)


CONTINUOUS = {
    "vp_linear": schedules.vp_linear(),
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "edm": schedules.edm(),
    "cosine": schedules.cosine(),
    "sigmoid": schedules.sigmoid(),
    "flow": schedules.flow(),
    "shifted": schedules.shifted(schedules.cosine(), 4.0),
    "shifted_flow": schedules.shifted_flow(schedules.flow(), 3.0),
}


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_every_schedule_starts_at_the_data_and_only_loses(schedule):
    t = np.linspace(0, 1, 1001)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert alpha.dtype == sigma.dtype == np.float64
    assert alpha.shape == sigma.shape == t.shape
    np.testing.assert_allclose([alpha[0], sigma[0]], [1, 0], atol=1e-15)
    assert (alpha >= 0).all()
    assert (np.diff(schedules.log_snr(schedule, t[1:])) < 0).all()
    traced = jnp.asarray(t, jnp.float32)
    np.testing.assert_allclose(schedule.alpha(traced), alpha, atol=1e-6)
    np.testing.assert_allclose(schedule.sigma(traced), sigma, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["vp_linear", "cosine", "sigmoid", "shifted"])
def test_vp_schedules_preserve_variance(name):
    t = np.linspace(0, 1, 101)
    np.testing.assert_allclose(CONTINUOUS[name].alpha(t) ** 2 + CONTINUOUS[name].sigma(t) ** 2, 1, rtol=1e-14)


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_the_inverse_of_log_snr(schedule):
    t = np.array([1e-4, 0.01, 0.3, 0.7, 0.99])
    np.testing.assert_allclose(schedules.inverse_log_snr(schedule, schedules.log_snr(schedule, t)), t, rtol=1e-9)
    assert schedules.inverse_log_snr(schedule, 1e4) < 1e-9


def test_the_linear_table_is_the_linear_sde_in_the_limit():
    """T betas b_i / T with b linear: alpha(t) of the table tends to the SDE's, at first order in 1 / T."""
    errors = []
    for num in (250, 500, 1000):
        table = schedules.from_betas(schedules.linear_betas(num, 0.1 / num, 20 / num))
        t = np.arange(1, num + 1) / num
        errors.append(np.abs(table.alpha(t) - schedules.vp_linear().alpha(t)).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert ((orders > 0.9) & (orders < 1.1)).all(), errors


def test_a_shift_is_a_shift_of_log_snr_and_of_the_flow_s_time():
    t = np.linspace(0.01, 0.99, 50)
    plain, moved = CONTINUOUS["cosine"], CONTINUOUS["shifted"]
    difference = schedules.log_snr(moved, t) - schedules.log_snr(plain, t)
    np.testing.assert_allclose(difference, -2 * np.log(4.0), rtol=1e-12)
    np.testing.assert_allclose(CONTINUOUS["shifted_flow"].sigma(t), 3 * t / (1 + 2 * t), rtol=1e-12)


def test_zero_terminal_snr_leaves_nothing_and_keeps_the_beginning():
    betas = schedules.linear_betas(1000)
    schedule = schedules.from_betas(schedules.zero_terminal_snr(betas))
    assert schedule.alpha(1.0) == 0
    assert schedule.sigma(1.0) == 1
    np.testing.assert_allclose(schedule.alpha(0.001), schedules.from_betas(betas).alpha(0.001), rtol=1e-12)


@pytest.mark.parametrize(
    "bad", [lambda: schedules.ve(1.0, 0.5), lambda: schedules.vp_linear(2, 1), lambda: schedules.shifted(None, 0)]
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(InputError):
        bad()
