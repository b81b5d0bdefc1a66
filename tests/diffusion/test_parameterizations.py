import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion import gaussian, losses, parameterizations, schedules

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


def test_weights_multiply_example_by_example(x64):
    schedule = schedules.cosine()
    t = jnp.array([0.01, 0.3, 0.5, 0.9])
    x0, noise = jax.random.normal(jax.random.key(0), (2, 4, 3))
    x_t = gaussian.q_sample(schedule, x0, t, noise)
    said = noise + 0.1
    # An error in eps is an error in x0 times SNR, whatever was said.
    error_x0 = (gaussian.x0_from_eps(schedule, x_t, said, t) - x0) ** 2
    np.testing.assert_allclose(losses.snr(schedule)(t)[:, None] * error_x0, (said - noise) ** 2, rtol=1e-9)
    ratio = np.asarray(losses.snr(schedule)(t))
    np.testing.assert_allclose(losses.min_snr(schedule, 5.0)(t), np.minimum(ratio, 5) / ratio, rtol=1e-12)

    weighted = losses.weighted(lambda *_: (jnp.ones(4), {}), losses.min_snr(schedule))
    value = losses.integrand(weighted)(None, None, None, t)
    np.testing.assert_allclose(value, np.minimum(ratio, 5) / ratio, rtol=1e-12)
