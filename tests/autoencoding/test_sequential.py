"""TD-VAE's bound where it is known: linear-Gaussian models, with Kalman's filter as the belief."""

from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from diffusion_jax.autoencoding import sequential
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.losses import Context
from tests.autoencoding import linear_gaussian as exact


def keys(num, seed=0):
    return rng.per_example(rng.root(seed), jnp.arange(num))


def jumped(parts, x, t1, t2, gap=sequential.by_sample, seed=0, believed=None):
    """J of each sequence [B]; the state at t2 is believed by b at `believed`, t2 by default."""

    @jax.jit
    def bound(x):
        b = parts.summary(None, x)
        b1, b2 = (jax.tree.map(lambda b, t=t: b[:, t], b) for t in (t1, believed or t2))
        jump = jnp.full(len(x), t2 - t1)
        return -sequential.jump_terms(parts, None, keys(len(x), seed), x[:, t2 - 1], b1, b2, jump, gap).bound

    return np.asarray(bound(x))


def test_a_jump_of_one_is_the_predictive_density_whatever_is_drawn(x64):
    x = exact.draw(50, 4, seed=0)
    known = np.stack([exact.predictive(x, t, 1) for t in range(4)], 1)
    for t, seed in ((0, 0), (2, 1)):
        np.testing.assert_allclose(jumped(exact.PARTS, x, t, t + 1, seed=seed), known[:, t], rtol=0, atol=1e-11)
    # The control: z2 drawn by the belief at t1.
    assert np.abs(jumped(exact.PARTS, x, 2, 3, believed=2) - known[:, 2]).max() > 0.1
    # The densities of all entries make that of the sequence, one Gaussian of four numbers.
    cov = exact.joint(4)
    inverse, log_det = np.linalg.inv(cov), np.linalg.slogdet(2 * np.pi * cov)[1]
    density = -0.5 * (np.einsum("bi,ij,bj->b", x[..., 0], inverse, x[..., 0]) + log_det)
    np.testing.assert_allclose(known.sum(1), density, rtol=1e-10)


def test_a_sequence_costs_what_its_jumps_of_one_do(x64):
    """The mean of 20,000 sequences is that of log p(x), to 4 standard errors: a false alarm in 16,000."""
    x = exact.draw(20_000, 4, seed=2)
    known = np.stack([exact.predictive(x, t, 1) for t in range(4)], 1).mean(1)
    found = jax.jit(sequential.step_by_step(exact.PARTS))(None, keys(len(x)), x)
    excess = np.asarray(found.total * np.log(2) + known)
    assert excess.std() > 0  # its divergence is in closed form, and so exact on average only
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(x))
    np.testing.assert_allclose(found.rate + found.distortion, found.total, rtol=1e-12)


def test_a_longer_jump_falls_short_by_what_lies_between(x64):
    """E J = E log p(x2 | x_1, ..., x_t1) - gap, over 40,000 sequences; 4 standard errors, a false alarm in 16,000."""
    x, t1, t2 = exact.draw(40_000, 4, seed=1), 1, 3
    predictive = np.asarray(exact.predictive(x, t1, 2))
    # The covariance of (z1, z2) given x_1, ..., x_t1 and x_t2, without and with what lies between.
    without, known = exact.ends_of_two(t1, between=False), exact.ends_of_two(t1, between=True)
    all_of_it = (np.linalg.slogdet(without)[1] - np.linalg.slogdet(known)[1]) / 2
    of_z2 = (np.linalg.slogdet(without[2:, 2:])[1] - np.linalg.slogdet(known[2:, 2:])[1]) / 2
    assert all_of_it > of_z2 + 0.02  # the best p_S does not look between
    for smoothing, gap in ((exact.smoothing, of_z2), (exact.smoothing_of_all, all_of_it)):
        for kind in (sequential.by_sample, sequential.in_closed_form):
            short = predictive - jumped(exact.PARTS._replace(smoothing=smoothing), x, t1, t2, kind)
            error = short.std() / np.sqrt(len(x))
            assert abs(short.mean() - gap) < 4 * error
            assert short.mean() > 8 * error  # the control: it is no likelihood


class Told(NamedTuple):
    """A law that draws what it is told, and whose log density is that, too."""

    told: jax.Array

    def sample(self, key):
        return self.told

    def log_prob(self, x):
        return self.told


def test_jumps_are_drawn_evenly_from_each_key_alone():
    """By chi-square, 20,000 keys of seed 0: above the bound in one of 10,000 seeds."""
    length, shortest, longest = 6, 2, 4

    def told(value):
        return lambda above: Told(value.astype(jnp.float32)[:, None])

    parts = sequential.StateSpace(
        layers=1,
        summary=lambda params, x: jnp.broadcast_to(jnp.arange(x.shape[1] + 1), (len(x), x.shape[1] + 1)),
        belief=lambda params, b: told(b),
        smoothing=lambda params, z2, b1, b2, jump: told(b1),
        transition=lambda params, z1, jump: told(jump),
        decoder=lambda params, z: Told(z[0]),
    )
    loss = jax.jit(sequential.loss(parts, shortest, longest, gap=sequential.by_sample))
    x = np.zeros((20_000, length, 1), np.float32)
    _, info = loss(keys(len(x)), None, x, Context(()))
    t2 = -np.asarray(info["distortion"])  # as the decoder was told
    jump = t2 - np.asarray(info["surprise"])
    assert (info["smoothing"] == 0).all()
    expected = {(t1, d): 1 / 3 / (length - d + 1) for d in (2, 3, 4) for t1 in range(length - d + 1)}
    found = Counter(zip((t2 - jump).astype(int).tolist(), jump.astype(int).tolist(), strict=True))
    assert found.keys() == expected.keys()
    counts, shares = np.array([found[pair] for pair in expected]), np.array([*expected.values()])
    assert chisquare(counts, len(x) * shares).pvalue > 1e-4
    assert chisquare(counts).pvalue < 1e-4  # the control: pairs are not alike
    few = slice(100, 103)
    _, alone = loss(keys(len(x))[few], None, x[few], Context(()))
    np.testing.assert_array_equal(alone["distortion"], info["distortion"][few])


def test_jumps_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="jumps of 0 to 4 entries; give 1 <= shortest <= longest"):
        sequential.loss(exact.PARTS, 0, 4)
    with pytest.raises(InputError, match="no jump of 4 fits into a sequence of 3; give sequences of at least 4"):
        sequential.loss(exact.PARTS, 1, 4)(keys(2), None, jnp.zeros((2, 3, 1)), Context(()))


def test_what_follows_is_drawn_by_the_model(x64):
    """Means and covariances of 40,000 futures of one past; 4 standard errors, a false alarm in 2000 (8 figures)."""
    x, num = exact.draw(1, 2, seed=3), 2
    laws = jax.jit(lambda keys, x: sequential.rollout(exact.PARTS, None, keys, x, num))(
        keys(40_000), jnp.broadcast_to(x, (40_000, 2, 1))
    )
    drawn = np.asarray(draw(laws, keys(40_000, seed=1)))[..., 0]
    means, covs = exact.kalman(x)
    for n in range(num):
        mean, cov = exact.moved(means[0, -1], covs[-1], n + 1)
        mean, var = (exact.C @ mean)[0], (exact.C @ cov @ exact.C.T + exact.R)[0, 0]
        assert abs(drawn[:, n].mean() - mean) < 4 * np.sqrt(var / len(drawn))
        assert abs(drawn[:, n].var() / var - 1) < 4 * np.sqrt(2 / len(drawn))
    _, cov = exact.moved(means[0, -1], covs[-1], 1)
    across = (exact.C @ exact.A @ cov @ exact.C.T)[0, 0]  # of both entries, through the state alone
    product = (drawn[:, 0] - drawn[:, 0].mean()) * (drawn[:, 1] - drawn[:, 1].mean())
    assert abs(product.mean() - across) < 4 * product.std() / np.sqrt(len(drawn))
    # From nothing: the first entry is that of the model's start.
    first = sequential.rollout(exact.PARTS, None, keys(40_000), jnp.zeros((40_000, 0, 1)), 1)
    _, cov = exact.moved(np.zeros(2), exact.START, 1)
    assert abs(np.asarray(first.mean).var() / (exact.C @ cov @ exact.C.T)[0, 0] - 1) < 4 * np.sqrt(2 / 40_000)
