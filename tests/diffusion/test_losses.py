"""Weights of losses."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion import gaussian, losses, parameterizations, schedules


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


def test_errors_are_means_of_squares_or_of_sizes():
    said = parameterizations.eps(schedules.cosine())
    noise = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    given = noise + jnp.array([[1.0, -3.0], [0.0, 2.0]]), None, noise, None, jnp.full(2, 0.5)
    np.testing.assert_allclose(losses.squared_error(said)(*given), [5.0, 2.0])
    np.testing.assert_allclose(losses.absolute_error(said)(*given), [2.0, 1.0])


def test_min_snr_is_finite_wherever_there_is_noise():
    weight = losses.min_snr(schedules.from_betas(schedules.zero_terminal_snr(schedules.linear_betas(100))))
    t = jnp.array([0.01, 0.5, 1.0])
    assert np.isfinite(weight(t)).all()
    assert weight(t)[-1] == 1
    assert np.isfinite(jax.grad(lambda t: losses.min_snr(schedules.cosine())(t).sum())(t)).all()
