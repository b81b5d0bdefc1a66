"""The rate in three parts, and their estimate with references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from diffusion_jax.autoencoding import total_correlation
from diffusion_jax.autoencoding.codes import Code
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.losses import Context

pytestmark = pytest.mark.usefixtures("x64")

N, D, K = 3000, 4, 3
A = np.array([[1.0, 0.5, 0], [0.3, 1, 0.2], [0, 0.4, 0.8], [0.2, 0, 0.1]])  # z = x A + noise
S = np.array([0.3, 0.5, 0.4])  # variances of the noise
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, D)) * np.array([1.5, 1, 1, 0.5])
Z = X @ A + RANDOM.normal(size=(N, K)) * np.sqrt(S)


def encode(params, x):
    mean = x @ params
    return Gaussian(mean, jnp.broadcast_to(jnp.asarray(S), mean.shape))


def parts(z, x, references, examples):
    same = (np.asarray(x)[:, None] == references).all(axis=2)
    decompose = jax.jit(total_correlation.decompose, static_argnums=4)
    return jax.tree.map(np.asarray, decompose(z, encode(A, x), encode(A, references), same, examples))


def log_normal(z, mean, var):
    return -0.5 * (np.log(2 * np.pi * var) + (z - mean) ** 2 / var)


def test_the_parts_are_those_of_a_normal_law_and_add_up_to_the_rate():
    """Seed 0, 3000 examples, all of them references. Each part is within 4 standard errors (false alarms: 6e-5) and
    the estimate's own bias, which is below .03 here, of its closed form."""
    found = parts(Z, X, X, N)
    covariance = A.T @ np.cov(X.T, bias=True) @ A + np.diag(S)
    scale, log_det = np.diag(covariance), np.linalg.slogdet(covariance)[1]
    mean = (X @ A).mean(axis=0)
    expected = (
        0.5 * (log_det - np.log(S).sum()),
        0.5 * (np.log(scale).sum() - log_det),
        0.5 * (scale + mean**2 - 1 - np.log(scale)).sum(),
    )
    for part, value in zip(found, expected, strict=True):
        assert abs(part.mean() - value) < 4 * part.std() / N**0.5 + 0.03
    rate = 0.5 * ((X @ A) ** 2 + S - 1 - np.log(S)).sum(axis=1).mean()
    np.testing.assert_allclose(sum(expected), rate, rtol=1e-12)
    exactly = (log_normal(Z, X @ A, S) - log_normal(Z, 0, 1)).sum(axis=1)
    np.testing.assert_allclose(sum(found), exactly, rtol=1e-10)
    assert expected[1] > 0.2  # there is something to find
    # Control: minibatch weighted sampling (Chen et al. 2018, equation 5) is off by about (k - 1) log N.
    each = log_normal(Z[:64, None], (X[:64] @ A)[None], S)
    log_n = np.log(64 * N)
    weighted = logsumexp(each.sum(axis=2), axis=1) - log_n - (logsumexp(each, axis=1) - log_n).sum(axis=1)
    np.testing.assert_allclose(weighted.mean() - expected[1], (K - 1) * np.log(N), atol=1)


def test_with_all_examples_as_references_the_law_of_codes_is_exact():
    few, size = 50, 20
    found = parts(Z[:size], X[:size], X[:few], few)
    each = log_normal(Z[:size, None], (X[:few] @ A)[None], S)
    joint = logsumexp(each.sum(axis=2), axis=1) - np.log(few)
    own = log_normal(Z[:size], X[:size] @ A, S).sum(axis=1)
    np.testing.assert_allclose(found.information, own - joint, rtol=1e-10)
    alone = (logsumexp(each, axis=1) - np.log(few)).sum(axis=1)
    np.testing.assert_allclose(found.correlation, joint - alone, rtol=1e-10)
    # Control: the own example's share in the first column, as in the published code, is another law.
    shares = np.full(few, (1 - 1 / 1000) / (few - 1))
    shares[0] = 1 / 1000
    column = own - logsumexp(each.sum(axis=2), axis=1, b=shares)
    diagonal = parts(Z[:size], X[:size], X[:few], 1000).information
    weights = np.where(np.eye(size, few, dtype=bool), 1 / 1000, (1 - 1 / 1000) / (few - 1))
    np.testing.assert_allclose(diagonal, own - logsumexp(each.sum(axis=2), axis=1, b=weights), rtol=1e-10)
    assert np.abs(column - diagonal).max() > 0.1


def test_few_references_cost_the_information_half_of_their_relative_variance():
    """Seed 1, 400 codes, 20 sets of 100 references: log of an estimate is low by half its variance, to 30 %."""
    rows = np.random.default_rng(1).permutation(N)
    z, x, pool = Z[rows[:400]] * 0.5, X[rows[:400]], X[rows[400:2400]].reshape(20, 100, D)
    log_q = np.stack([(log_normal(z, x @ A, S).sum(axis=1) - parts(z, x, some, N).information) for some in pool])
    whole = logsumexp(log_q, axis=0) - np.log(len(pool))
    relative = np.exp(log_q - whole).var(axis=0, ddof=1)
    np.testing.assert_allclose((whole - log_q).mean(), relative.mean() / 2, rtol=0.3)


def test_a_penalty_does_not_depend_on_how_the_batch_is_split_and_takes_references_in_turn():
    held = X[100:121]

    def of_batch(references, z, x, step):
        penalty = total_correlation.weighted(4.0, encode, references)
        return penalty(
            A,
            None,
            x,
            Code(z, 0, 0, 0),
            Context((), step, {}, jax.tree.map(jnp.asarray, total_correlation.hold(held, N))),
        )

    of_batch = jax.jit(of_batch, static_argnums=0)

    def of(rows, step):
        return of_batch(7, Z[rows], X[rows], step)

    whole = of(slice(0, 8), 1)
    np.testing.assert_allclose(whole, np.concatenate([of(slice(0, 4), 1), of(slice(4, 8), 1)]), rtol=1e-12)
    np.testing.assert_allclose(whole, 3 * parts(Z[:8], X[:8], held[7:14], N).correlation, rtol=1e-12)
    np.testing.assert_allclose(whole, of(slice(0, 8), 4), rtol=1e-12)  # after three updates all have had their turn
    assert np.abs(whole - of(slice(0, 8), 2)).max() > 1e-3
    # All of them, where fewer are held than asked for; one of them is the example itself.
    found = of_batch(500, Z[100:104], X[100:104], 3)
    np.testing.assert_allclose(found, 3 * parts(Z[100:104], X[100:104], held, N).correlation, rtol=1e-12)


def test_a_lone_example_among_the_references_leaves_numbers_finite():
    def mean(params):
        q = encode(params, X[:1])
        return total_correlation.decompose(Z[:1], q, q, jnp.ones((1, 1), bool), N).correlation.sum()

    value, slope = jax.jit(jax.value_and_grad(mean))(A)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_weights_and_counts_without_sense_are_refused():
    with pytest.raises(InputError, match="a total correlation weighed by -1"):
        total_correlation.weighted(-1, encode, 7)
    with pytest.raises(InputError, match="0 references for the law of the codes; give at least 1"):
        total_correlation.weighted(2.0, encode, 0)
    for references, examples in ((X[:1], 1), (X[:0], N)):
        with pytest.raises(InputError, match="examples stand for the law of the codes; give 1 of 2 or more"):
            total_correlation.hold(references, examples)
