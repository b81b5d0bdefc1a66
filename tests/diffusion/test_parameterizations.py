import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion import gaussian, parameterizations, schedules

FLOW, EDM = schedules.flow(), schedules.edm()
CONTINUOUS = {
    "velocity": (FLOW, parameterizations.velocity(FLOW, parameterizations.thousandths)),
    "edm": (EDM, parameterizations.edm(EDM)),
    "edm on a VP schedule": (schedules.cosine(), parameterizations.edm(schedules.cosine())),
}


@pytest.mark.parametrize(("schedule", "parameterization"), CONTINUOUS.values(), ids=CONTINUOUS)
def test_a_network_that_says_its_target_is_read_as_x0(x64, schedule, parameterization):
    x0, noise = jax.random.normal(jax.random.key(0), (2, 3, 4))
    t = jnp.array([0.001, 0.5, 0.99])
    x_t = gaussian.q_sample(schedule, x0, t, noise)
    estimate = parameterization.read(parameterization.target(x0, noise, t), x_t, t)
    np.testing.assert_allclose(estimate.mean, x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_edm_keeps_input_and_target_at_unit_variance(x64, sigma):
    """For data of variance sigma_data^2, exactly: both are linear in independent x0 and noise."""
    sigma_data, t = 0.7, jnp.array([sigma / 80])
    parameterization = parameterizations.edm(EDM, sigma_data)

    def variance(f):
        of_data, of_noise = jax.jacobian(f, argnums=(0, 1))(jnp.zeros(1), jnp.zeros(1))
        return float(of_data[0, 0] ** 2 * sigma_data**2 + of_noise[0, 0] ** 2)

    def network_input(x0, noise):
        return parameterization.scale(gaussian.q_sample(EDM, x0, t, noise), t)[0]

    np.testing.assert_allclose(variance(network_input), 1, rtol=1e-12)
    np.testing.assert_allclose(variance(lambda x0, noise: parameterization.target(x0, noise, t)), 1, rtol=1e-9)
    np.testing.assert_allclose(parameterization.scale(jnp.zeros((1, 1)), t)[1], jnp.log(sigma) / 4, rtol=1e-9)


def test_the_velocity_is_the_slope_of_the_path():
    x0, noise = jax.random.normal(jax.random.key(0), (2, 5))
    _, slope = jax.jvp(lambda t: gaussian.q_sample(FLOW, x0, t, noise), (0.3,), (1.0,))
    target = parameterizations.velocity(FLOW, parameterizations.thousandths).target(x0, noise, 0.3)
    np.testing.assert_allclose(target, slope, rtol=1e-5)


T = 1000
SCHEDULE = schedules.from_betas(schedules.linear_betas(T))
INDEX = parameterizations.table_index(T)
NAMES = {
    "eps": parameterizations.eps(SCHEDULE, INDEX),
    "x0": parameterizations.x0(INDEX),
    "v": parameterizations.v(SCHEDULE, INDEX),
    "score": parameterizations.score(SCHEDULE, INDEX),
}


@pytest.mark.parametrize("parameterization", NAMES.values(), ids=NAMES)
def test_on_a_table_a_network_that_says_its_target_is_read_as_x0(x64, parameterization):
    """`read` undoes `target`: whatever the network is asked for, a perfect answer names the clean image."""
    x0, noise = jax.random.normal(jax.random.key(0), (2, 3, 4))
    t = jnp.array([0.001, 0.5, 1.0])
    x_t = SCHEDULE.alpha(t)[:, None] * x0 + SCHEDULE.sigma(t)[:, None] * noise
    estimate = parameterization.read(parameterization.target(x0, noise, t), x_t, t)
    np.testing.assert_allclose(estimate.mean, x0, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(parameterization.scale(x_t, t)[1], [0, 499, 999])
