"""Bounds of the likelihood, where it is known: probabilistic PCA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import bottlenecks, bounds, laws
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian

D, VAR = 4, 0.3
W = np.array([[1.0, 0.5, 0, -1], [0.5, -1, 2, 0]])  # orthogonal rows: the posterior's numbers are independent
X = np.random.default_rng(0).normal(size=(5, D))
PRECISION = 1 + (W**2).sum(axis=1) / VAR
COVARIANCE = W.T @ W + VAR * np.eye(D)
LOG_P = -0.5 * (
    D * np.log(2 * np.pi) + np.linalg.slogdet(COVARIANCE)[1] + (X * np.linalg.solve(COVARIANCE, X.T).T).sum(axis=1)
)


def decode(params, z):
    return laws.gaussian(VAR)(params, z @ W)


def encode(off, x):
    """The posterior, with means that are `off` from its own."""
    mean = x @ W.T / VAR / PRECISION + off
    return Gaussian(mean, jnp.broadcast_to(1 / PRECISION, mean.shape))


def nats(bits):
    return -np.asarray(bits) * D * np.log(2)


KEYS = rng.per_example(rng.root(0), jnp.arange(len(X)))


@pytest.mark.usefixtures("x64")
def test_with_the_true_posterior_every_draw_tells_the_likelihood():
    for draws, seed in ((1, 0), (7, 1)):
        found = jax.jit(bounds.iwae(encode, decode, draws))(0.0, rng.per_example(rng.root(seed), jnp.arange(5)), X)
        np.testing.assert_allclose(nats(found.total), LOG_P, atol=1e-12)
    # The mean rate is in closed form, so the bound itself depends on the draw, and its mean over draws is log p.
    code = coder(encode, bottlenecks.sampled)
    many = jax.jit(bounds.elbo(code, decode))(0.0, rng.per_example(rng.root(2), jnp.arange(20_000)), X[[0] * 20_000])
    total, rate, distortion = map(nats, many)
    np.testing.assert_allclose(total, rate + distortion, rtol=1e-12)
    assert abs(total.mean() - LOG_P[0]) < 4 * total.std() / 20_000**0.5  # seed 2; false alarms: 6e-5


@pytest.mark.usefixtures("x64")
def test_more_draws_of_another_law_rise_to_the_likelihood():
    """Seeds 3 to 6, 2000 sets of K draws. Means are 4 standard errors apart, and end within 4 of them and the bias
    of 1 / K from log p (false alarms: 6e-5)."""
    x, off, sets = X[[0] * 2000], 0.4, 2000
    gap = 0.5 * off**2 * PRECISION.sum()  # KL(q || p(z | x))
    means, errors = [], []
    for seed, draws in ((3, 1), (4, 4), (5, 16), (6, 256)):
        found = jax.jit(bounds.iwae(encode, decode, draws))(off, rng.per_example(rng.root(seed), jnp.arange(sets)), x)
        found = nats(found.total)
        means.append(found.mean() - LOG_P[0])
        errors.append(4 * found.std() / sets**0.5)
    assert abs(means[0] + gap) < errors[0]  # one draw is the evidence lower bound
    assert (np.diff(means) > np.add(errors[1:], errors[:-1])).all()
    assert -0.1 < means[-1] < errors[-1]
