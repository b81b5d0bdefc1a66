import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import gaussian, processes, schedules, variances

SCHEDULE = schedules.from_betas(schedules.linear_betas(1000))
NOISES = {
    "ddpm": gaussian.refreshed,
    "ddim_0": processes.ddim(0.0),
    "ddim_half": processes.ddim(0.5),
    "renoise": processes.renoise,
}


@pytest.mark.parametrize("refresh", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.999), (0.5, 0.2), (0.002, 0.001), (0.3, 0.0)])
def test_every_bridge_keeps_the_marginal(x64, refresh, t, s):
    """x_t ~ q(x_t | x0) through the kernel is x_s ~ q(x_s | x0): its mean and variance in closed form."""
    coefficient = processes.gaussian(SCHEDULE, refresh).bridge(t, s).args[0]
    signal = coefficient.x_t * SCHEDULE.alpha(t) + coefficient.x0
    noise = (coefficient.x_t * SCHEDULE.sigma(t)) ** 2 + coefficient.var
    np.testing.assert_allclose(signal, SCHEDULE.alpha(s), rtol=1e-12)
    np.testing.assert_allclose(noise, SCHEDULE.sigma(s) ** 2, rtol=1e-9, atol=1e-18)


def test_the_default_bridge_is_ddpms_posterior(x64):
    x0, x_t = jax.random.normal(jax.random.key(0), (2, 7))
    for t, s in [(1.0, 0.999), (0.8, 0.3), (0.001, 0.0)]:
        kernel = processes.gaussian(SCHEDULE).bridge(t, s)(Gaussian(x0), x_t)
        posterior = gaussian.q_posterior(SCHEDULE, x0, x_t, t, s)
        np.testing.assert_allclose(kernel.mean, posterior.mean, rtol=1e-9)
        np.testing.assert_allclose(kernel.var, jnp.full(7, posterior.var), rtol=1e-9, atol=1e-18)


def test_ddims_bridge_is_its_equation_12(x64):
    x0, x_t = jax.random.normal(jax.random.key(0), (2, 7))
    t, s, eta = 0.8, 0.7, 0.5
    alpha_t, alpha_s, sigma_t, sigma_s = (f(u) for f in SCHEDULE for u in (t, s))
    std = eta * np.sqrt(sigma_s**2 / sigma_t**2) * np.sqrt(1 - alpha_t**2 / alpha_s**2)
    eps = (x_t - alpha_t * x0) / sigma_t
    kernel = processes.gaussian(SCHEDULE, processes.ddim(eta)).bridge(t, s)(Gaussian(x0), x_t)
    np.testing.assert_allclose(kernel.mean, alpha_s * x0 + np.sqrt(sigma_s**2 - std**2) * eps, rtol=1e-12)
    np.testing.assert_allclose(kernel.std, jnp.full(7, std), rtol=1e-12)


@pytest.mark.parametrize(("t", "s"), [(1.0, 0.999), (0.8, 0.3), (0.002, 0.001)])
def test_fixed_large_gives_the_forward_step_s_variance(x64, t, s):
    """beta_t at neighbours of the table, 1 - (alpha_t / alpha_s)^2 at any stride."""

    def denoise(x, t):
        return Gaussian(jnp.zeros_like(x))

    x = jnp.ones((2, 3))
    estimate = variances.fixed_large(SCHEDULE)(denoise)(x, t)
    kernel = processes.gaussian(SCHEDULE).bridge(t, s)(estimate, x)
    want = 1 - (SCHEDULE.alpha(t) / SCHEDULE.alpha(s)) ** 2
    np.testing.assert_allclose(kernel.var, jnp.full((2, 3), want), rtol=1e-9)


def test_coefficients_of_a_grid_are_computed_in_float64():
    times = np.arange(1000, -1, -1) / 1000
    bridge = processes.gaussian(SCHEDULE).bridge(times[:-1], times[1:])
    for leaf in jax.tree.leaves(bridge):
        assert leaf.dtype == np.float64
        assert leaf.shape == (1000,)


def test_corruption_follows_the_marginal():
    """Seed 0, 100,000 draws; each bound is 4.9 standard errors, a false alarm in 10^6 runs."""
    num, t, x0 = 100_000, 0.3, 0.7
    process = processes.gaussian(SCHEDULE)
    keys = jax.random.split(jax.random.key(0), num)
    x_t, noise = jax.vmap(process.corrupt, (0, None, None))(keys, jnp.array(x0), t)
    sigma = SCHEDULE.sigma(t)
    assert abs(x_t.mean() - SCHEDULE.alpha(t) * x0) < 4.9 * sigma / num**0.5
    assert abs(x_t.var() / sigma**2 - 1) < 4.9 * (2 / num) ** 0.5
    np.testing.assert_allclose(x_t, SCHEDULE.alpha(t) * x0 + sigma * noise, rtol=1e-4, atol=1e-5)
    # Control: the marginal of a neighbouring time fails the same bound.
    assert abs(x_t.mean() - SCHEDULE.alpha(0.32) * x0) > 4.9 * sigma / num**0.5


@pytest.mark.parametrize(("t", "s"), [(0.3, 0.3), (0.3, 0.4), (0.3, -0.1), (1.1, 0.3)])
def test_an_interval_that_does_not_fall_is_refused(t, s):
    with pytest.raises(InputError, match="0 <= s < t <= 1"):
        processes.gaussian(SCHEDULE).bridge(t, s)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_outside_the_unit_interval_is_refused(eta):
    with pytest.raises(InputError, match="eta"):
        processes.ddim(eta)
