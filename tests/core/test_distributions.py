"""Laws of pixels: densities that integrate to 1, their means, and their draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.core.distributions import Bernoulli, ContinuousBernoulli

LOGITS = np.array([-60.0, -3, -0.11, -0.09, -1e-3, 0, 1e-5, 2e-3, 0.5, 8, 60])


@pytest.mark.usefixtures("x64")
def test_a_continuous_bernoulli_law_integrates_to_1_and_has_its_mean():
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x, weights = (nodes[:, None] + 1) / 2, weights / 2
    law = ContinuousBernoulli(jnp.asarray(LOGITS))
    density = np.exp(law.log_prob(x))
    np.testing.assert_allclose(weights @ density, 1, rtol=1e-7)
    np.testing.assert_allclose(law.mean, weights @ (density * x), rtol=1e-6)
    # Control: without its constant it is no density.
    assert np.abs(weights @ np.exp(Bernoulli(law.logits).log_prob(x)) - 1).min() > 0.1


def test_gradients_and_extremes_of_single_precision_are_finite():
    logits = jnp.asarray([-1e4, -200, -60, -1e-3, 0, 1e-3, 60, 200, 1e4], jnp.float32)

    @jax.jit
    def slopes(logits):
        laws = ContinuousBernoulli, Bernoulli
        values = [lambda logit, law=law, x=x: law(logit).log_prob(x) for law in laws for x in (0.0, 1.0)]
        values += [lambda logit, law=law: law(logit).mean for law in laws]
        return [jax.vmap(jax.value_and_grad(value))(logits) for value in values]

    found = slopes(logits)
    assert all(np.isfinite(array).all() for pair in found for array in pair)
    assert all(((mean >= 0) & (mean <= 1)).all() for mean, _ in found[-2:])


@pytest.mark.parametrize("logit", [-12.0, -0.8, 9e-4, 3.0])
def test_draws_of_a_continuous_bernoulli_law_follow_it(logit):
    """Kolmogorov-Smirnov, seed 0, 20,000 draws: a false alarm in 10^6 at 2.69 / sqrt(n). Control: another logit."""
    x = np.asarray(ContinuousBernoulli(jnp.full(20_000, logit)).sample(jax.random.key(0)), np.float64)

    def distance(logit):
        return stats.kstest(x, lambda x: np.expm1(logit * x) / np.expm1(logit)).statistic

    assert distance(logit) < 2.69 / 20_000**0.5 < distance(1.2 * logit + 0.3)


def test_draws_of_a_bernoulli_law_are_as_likely_as_it_says():
    """Seed 0, 100,000 draws each: shares within 5 standard errors (false alarms: 6e-7 each)."""
    law = Bernoulli(jnp.tile(jnp.asarray([-2.0, 0, 1.5]), (100_000, 1)))
    share = np.asarray(law.sample(jax.random.key(0)), np.float64).mean(axis=0)
    p = np.exp(np.asarray(law.log_prob(jnp.ones(3))[0], np.float64))
    assert (np.abs(share - p) < 5 * (p * (1 - p) / 100_000) ** 0.5).all()
    np.testing.assert_allclose(law.mean[0], p, rtol=1e-6)
    np.testing.assert_allclose(np.exp(law.log_prob(jnp.zeros(3))[0]), 1 - p, rtol=1e-5)
