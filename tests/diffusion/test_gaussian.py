import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.diffusion import gaussian, schedules

SCHEDULE = schedules.from_betas(schedules.linear_betas(1000))


def test_posterior_variance_has_the_published_value(x64):
    # 0-based index 1 of the official table: from t = 2/1000 to 1/1000.
    posterior = gaussian.q_posterior(SCHEDULE, jnp.zeros(1), jnp.zeros(1), 0.002, 0.001)
    np.testing.assert_allclose(posterior.var, 5.45319e-5, rtol=2e-6)


def test_posterior_is_bayes_rule_on_a_grid(x64):
    """q(x_s | x_t, x0) from the definition: q(x_t | x_s) q(x_s | x0), normalised numerically."""
    t, s, x0, x_t = 0.7, 0.4, 0.3, -0.5
    grid = np.linspace(-12, 12, 200_001)
    ratio = SCHEDULE.alpha(t) / SCHEDULE.alpha(s)
    forward_var = SCHEDULE.sigma(t) ** 2 - (ratio * SCHEDULE.sigma(s)) ** 2
    log_joint = -((x_t - ratio * grid) ** 2) / (2 * forward_var)
    log_joint -= (grid - SCHEDULE.alpha(s) * x0) ** 2 / (2 * SCHEDULE.sigma(s) ** 2)
    weight = np.exp(log_joint - log_joint.max())
    weight /= weight.sum()
    mean = (weight * grid).sum()
    posterior = gaussian.q_posterior(SCHEDULE, jnp.array(x0), jnp.array(x_t), t, s)
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(posterior.var, (weight * (grid - mean) ** 2).sum(), rtol=1e-9)


@pytest.mark.parametrize("t", [0.001, 0.3, 1.0])
def test_eps_x0_v_and_score_name_one_thing(x64, t):
    x0, eps = jax.random.normal(jax.random.key(0), (2, 4, 3))
    x_t = gaussian.q_sample(SCHEDULE, x0, t, eps)
    v = gaussian.v_from_x0(SCHEDULE, x0, eps, t)
    score = gaussian.score_from_eps(SCHEDULE, eps, t)
    for got, want in [
        (gaussian.x0_from_eps(SCHEDULE, x_t, eps, t), x0),
        (gaussian.eps_from_x0(SCHEDULE, x_t, x0, t), eps),
        (gaussian.x0_from_v(SCHEDULE, x_t, v, t), x0),
        (gaussian.eps_from_v(SCHEDULE, x_t, v, t), eps),
        (gaussian.eps_from_score(SCHEDULE, score, t), eps),
    ]:
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_score_is_the_gradient_of_the_log_marginal(x64):
    x0, eps = jax.random.normal(jax.random.key(0), (2, 5))
    x_t = gaussian.q_sample(SCHEDULE, x0, 0.4, eps)
    gradient = jax.grad(lambda x: gaussian.q_marginal(SCHEDULE, x0, 0.4).log_prob(x).sum())(x_t)
    np.testing.assert_allclose(gaussian.score_from_eps(SCHEDULE, eps, 0.4), gradient, rtol=1e-9)


def test_times_may_differ_between_examples():
    x0, eps = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 1))
    t = jnp.array([0.1, 0.5, 1.0])
    together = gaussian.q_sample(SCHEDULE, x0, t, eps)
    for i in range(3):
        np.testing.assert_allclose(together[i], gaussian.q_sample(SCHEDULE, x0[i], t[i], eps[i]), rtol=1e-6)


def test_kl_against_quadrature(x64):
    p, q = Gaussian(jnp.array(0.3), jnp.array(0.5)), Gaussian(jnp.array(-0.2), jnp.array(1.7))
    grid = jnp.linspace(-12, 12, 100_001)
    integrand = jnp.exp(p.log_prob(grid)) * (p.log_prob(grid) - q.log_prob(grid))
    np.testing.assert_allclose(p.kl(q), integrand.sum() * (grid[1] - grid[0]), rtol=1e-9)


def test_gradients_through_a_point_mass_are_finite():
    def drawn(mean, var):
        return Gaussian(mean, var).sample(jax.random.key(0)).sum()

    gradients = jax.grad(drawn, argnums=(0, 1))(jnp.ones(3), jnp.zeros(3))
    assert all(np.isfinite(g).all() for g in gradients)
