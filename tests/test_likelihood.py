import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import likelihood, processes, schedules, variances
from diffusion_jax.distributions import Gaussian

T = 1000
SCHEDULE = schedules.from_betas(schedules.linear_betas(T))


def test_prior_term_has_the_published_value(x64):
    # E[x^2] = 1/3 through its two-point realisation, x = +-sqrt(1/3).
    x0 = jnp.array([3**-0.5, -(3**-0.5)])
    term = likelihood.bits(likelihood.prior_term(SCHEDULE, x0).mean())
    np.testing.assert_allclose(term, 9.7e-6, rtol=0.01)


@pytest.mark.parametrize("mean", [-1.3, -0.2, 0.0, 0.99])
@pytest.mark.parametrize("std", [0.005, 0.1, 2.0])
def test_decoder_mass_sums_to_one(x64, mean, std):
    levels = jnp.arange(256) / 127.5 - 1
    nats = likelihood.decoder_term(Gaussian(jnp.full(256, mean), jnp.full(256, std**2)), levels, floor=1e-300)
    np.testing.assert_allclose(jnp.exp(-nats).sum(), 1, atol=1e-14)


@pytest.mark.parametrize(("large", "gap"), [(True, 0.0), (False, 0.465)])
def test_bound_of_a_standard_normal_with_the_exact_eps(x64, large, gap):
    """Data N(0, 1): bound minus entropy is 0 with beta_t and 0.465 nats with the posterior variance.

    E[x0 | x_t] = alpha_t x_t. The expectations over (x0, x_t) are exact: each term is quadratic in them, so
    Gauss-Hermite quadrature with 5 x 5 nodes has no error.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    weights = weights / weights.sum()
    x0, eps = (jnp.asarray(a.ravel()) for a in np.meshgrid(nodes, nodes, indexing="ij"))
    weight = jnp.asarray(np.outer(weights, weights).ravel())

    def denoise(x, t):
        return Gaussian(SCHEDULE.alpha(t) * x)

    if large:
        denoise = variances.fixed_large(SCHEDULE)(denoise)
    bridge = processes.gaussian(SCHEDULE).bridge

    def term(t, s):
        x_t = SCHEDULE.alpha(t) * x0 + SCHEDULE.sigma(t) * eps
        kernel = bridge(t, s)(denoise(x_t, t), x_t)
        return jnp.sum(weight * likelihood.transition_term(SCHEDULE, x0, x_t, kernel, t, s))

    bound = jnp.sum(weight * likelihood.prior_term(SCHEDULE, x0))
    bound += jax.lax.map(lambda i: term(i / T, (i - 1) / T), jnp.arange(2, T + 1)).sum()
    # The last step, -log p(x0 | x_1) as a density, has variance beta_1 in both: the posterior's would be 0.
    x_1 = SCHEDULE.alpha(1 / T) * x0 + SCHEDULE.sigma(1 / T) * eps
    decoder = Gaussian(SCHEDULE.alpha(1 / T) * x_1, SCHEDULE.sigma(1 / T) ** 2)
    bound -= jnp.sum(weight * decoder.log_prob(x0))
    entropy = 0.5 * np.log(2 * np.pi * np.e)
    np.testing.assert_allclose(bound - entropy, gap, atol=1e-11 if large else 5e-4)
