"""Deletion on sequences short enough to list every way to lose tokens."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers, timesteps
from diffusion_jax.diffusion.processes.categorical import linear_alpha
from diffusion_jax.diffusion.processes.deletion import PAD, Insertion, Sequence, deletion, log_ways, places

L = 5
PROCESS = deletion(linear_alpha)
X0 = (0, 1, 0, 0, 1)


def padded(x):
    return jnp.array([*x, *[PAD] * (L - len(x))], jnp.int32)


def marginal(x0, alpha):
    """q(x_t | x0): every set of survivors, as {sequence: probability}."""
    law = {}
    for kept in itertools.product([False, True], repeat=len(x0)):
        y = tuple(itertools.compress(x0, kept))
        law[y] = law.get(y, 0) + alpha ** sum(kept) * (1 - alpha) ** (len(x0) - sum(kept))
    return law


@pytest.mark.parametrize(("t", "s"), [(0.7, 0.4), (1.0, 0.5), (0.4, 0.0)])
def test_the_kernel_is_bayes_rule_and_keeps_the_marginal(x64, t, s):
    at_s, at_t = marginal(X0, 1 - s), marginal(X0, 1 - t)
    later = [x for x, p in at_s.items() if p > 0]
    now = [x for x, p in at_t.items() if p > 0]
    x_t = jnp.stack([padded(x) for x in now])
    kernel = PROCESS.bridge(t, s)(Sequence(jnp.broadcast_to(padded(X0), x_t.shape)), x_t)
    x_s = jnp.stack([padded(x) for x in later])
    ours = np.exp(jax.jit(jax.vmap(lambda k: jax.vmap(k.log_prob)(x_s)))(kernel))
    keep = (1 - t) / (1 - s)
    want = np.array([[at_s[z] * marginal(z, keep).get(y, 0) / at_t[y] for z in later] for y in now])
    np.testing.assert_allclose(ours, want, atol=1e-13)
    np.testing.assert_allclose(np.array([at_t[y] for y in now]) @ ours, [at_s[z] for z in later], atol=1e-13)


def test_ways_are_counted(x64):
    parts = [*marginal(X0, 0.5), (1, 1, 1), (1, 0, 0, 0)]
    want = [sum(z == y for z in itertools.combinations(X0, len(y))) for y in parts]
    ways = jax.jit(jax.vmap(log_ways, (0, None)))(jnp.stack([padded(y) for y in parts]), padded(X0))
    assert want[-2:] == [0, 0]
    np.testing.assert_allclose(np.exp(ways), want, rtol=1e-14)


def test_sampling_follows_the_kernel_s_law(x64):
    """Seed 0, 20,000 draws; chi-square below 90 for at most 20 degrees: a false alarm in 10^9 tests."""
    num, y, share = 20_000, (0, 1), 0.5
    kernel = Insertion(padded(X0), padded(y), jnp.array(share))
    x = np.asarray(jax.jit(jax.vmap(kernel.sample))(jax.random.split(jax.random.key(0), num)))
    drawn, count = np.unique(x, axis=0, return_counts=True)

    def statistic(kernel):
        law = np.exp(jax.jit(jax.vmap(kernel.log_prob))(jnp.asarray(drawn)))
        np.testing.assert_allclose(law.sum(), 1, atol=1e-3)
        return ((count - num * law) ** 2 / (num * law)).sum()

    assert len(drawn) <= 21
    assert statistic(kernel) < 90
    assert statistic(kernel._replace(share=jnp.array(share + 0.05))) > 90  # control


def test_places_are_all_alike():
    """(0, 1) is found in (0, 1, 0, 0, 1) in 4 ways. Seed 0, 10,000 draws, chi-square of 3 degrees below 38.6."""
    keys = jax.random.split(jax.random.key(0), 10_000)
    found = jax.jit(jax.vmap(lambda key: places(key, padded((0, 1)), padded(X0))))(keys)
    ways, count = np.unique(found, axis=0, return_counts=True)
    assert len(ways) == 4
    assert ((count - 2500) ** 2 / 2500).sum() < 38.6
    for way in ways:
        assert tuple(np.array(X0)[way]) == (0, 1)


def test_corruption_keeps_the_order_and_the_chain_returns_to_the_estimate():
    x0 = jnp.stack([padded((3, 1, 4, 1, 5)), padded((2, 7, 1))])
    for n, t in enumerate([0.0, 0.3, 0.6, 1.0]):
        x_t, level = PROCESS.corrupt(jax.random.key(n), x0[1], t)
        want = [x for x, u in zip(x0[1], level, strict=True) if u < 1 - t and x != PAD]
        np.testing.assert_array_equal(x_t, padded(want))
    keys = jax.random.split(jax.random.key(0), 2)
    x_1 = jax.vmap(lambda key: PROCESS.prior(key, (L,)))(keys)
    sampler = samplers.ancestral(PROCESS, end=draw)
    run = jax.jit(lambda x: samplers.film(sampler, timesteps.linear(6), lambda x, t: Sequence(x0), x, keys, 6))
    out, film = run(x_1)
    np.testing.assert_array_equal(out, x0)
    assert (np.diff((film != PAD).sum((1, 2))) >= 0).all()


def test_an_estimate_of_another_length_is_refused():
    with pytest.raises(InputError, match="take an estimate of that shape"):
        PROCESS.bridge(0.5, 0.4)(Sequence(jnp.zeros((1, 4), int)), jnp.zeros((1, 5), int))
