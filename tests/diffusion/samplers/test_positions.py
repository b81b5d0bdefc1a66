"""Tokens drawn one after another: the law that is enumerated, a loop in Python, films, and known tokens."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy.stats import chi2

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Categorical, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import (
    guidance,
    inpainting,
    likelihood,
    parameterizations,
    processes,
    samplers,
    timesteps,
)

VOCAB, SHAPE, SIZE = 3, (2, 2, 1), 4
PROCESS = processes.raster(VOCAB)
LOGITS = parameterizations.logits(parameterizations.thousandths)
ALL = np.array(list(product(range(VOCAB), repeat=SIZE)), np.int32).reshape(-1, *SHAPE)


def network(size=SIZE, seed=0):
    """`apply(params, x, time, *cond)`: each token's logits are linear in those before it, and in a label."""
    weights = np.random.default_rng(seed).normal(size=(size, VOCAB, size, VOCAB)).astype(np.float32)
    weights *= np.tri(size, k=-1, dtype=np.float32).T[:, None, :, None]
    bias = np.random.default_rng(seed + 1).normal(size=(size, VOCAB)).astype(np.float32)

    def apply(params, x, time, cond=None):
        hot = jax.nn.one_hot(x.reshape(len(x), size), VOCAB)  # a mask is nothing
        logits = jnp.einsum("bik,ikjl->bjl", hot, weights, precision="highest") + bias[None]
        if cond is not None:
            logits = logits + jnp.where(cond["label"] > 0, 1.0, -1.0)[:, None, None] * bias[None]
        return (params * logits).reshape(*x.shape, VOCAB)

    return apply


def sample_fn(batch, sampler=None, size=SIZE, shape=SHAPE, **options):
    sampler = sampler or samplers.positions(size)
    parts = network(size), LOGITS, PROCESS, sampler, timesteps.linear(size)
    return samplers.make_sample_fn(*parts, batch, shape, **options)


def law(params=1.0, apply=None):
    """The probability of each of `ALL`."""
    found = likelihood.make_exact_fn(apply or network(), LOGITS)(params, rng.of_batch(rng.root(0), len(ALL)), ALL)
    return np.exp(np.asarray(found.log_prob, np.float64))


DRAWS = 20_000


def misfit(drawn, expected):
    """Pearson's chi-squared of draws, as a share of what a right sampler passes one time in 100,000; seeds are 0.

    `expected` has the probability of each of `ALL`; those that occur less than 5 times are counted together.
    """
    place = np.asarray(drawn).reshape(len(drawn), SIZE) @ VOCAB ** np.arange(SIZE)[::-1]
    counts, wanted = np.bincount(place, minlength=len(ALL)), len(drawn) * expected
    assert not counts[expected == 0].any()
    rare = wanted < 5
    counts, wanted = (np.append(x[~rare], x[rare].sum()) for x in (counts, wanted))
    return ((counts - wanted) ** 2 / np.maximum(wanted, 1)).sum() / chi2.isf(1e-5, len(wanted) - 1)


@pytest.mark.parametrize("sampler", [samplers.positions(SIZE), samplers.ancestral(PROCESS, end=draw)])
def test_pictures_occur_as_often_as_they_should(sampler):
    """Both samplers of the process. The controls: the law by which tokens are independent, and a sharper one."""
    drawn = jax.jit(sample_fn(DRAWS, sampler))(1.0, rng.root(0))
    expected = law()
    assert abs(expected.sum() - 1) < 1e-6
    assert misfit(drawn, expected) < 1
    alone = np.ones(len(ALL))
    for i in range(SIZE):
        token = ALL.reshape(-1, SIZE)[:, i]
        alone *= np.bincount(token, expected)[token]
    for wrong in (alone, law(1.1)):
        assert misfit(drawn, wrong) > 2


def test_it_is_a_loop_over_positions():
    """To the bit; step n has the keys of n + 1. A film's frame n shows n tokens, and ends on the same."""
    keys = rng.per_example(rng.root(3), jnp.arange(5))
    filmed, frames = jax.jit(sample_fn(5, run=partial(samplers.film, frames=9)))(1.0, keys)
    said, shares = jax.jit(network()), []
    x = jnp.full((5, SIZE), VOCAB)
    for n in range(SIZE):
        np.testing.assert_array_equal(frames[n].reshape(5, SIZE), x)
        logits = said(1.0, x.reshape(5, *SHAPE), None).reshape(5, SIZE, VOCAB)[:, n]
        token = [Categorical(logits[i]).sample(jax.random.fold_in(keys[i], n + 1)) for i in range(5)]
        x = x.at[:, n].set(jnp.stack(token))
    np.testing.assert_array_equal(frames[SIZE].reshape(5, SIZE), x)
    reported = samplers.reporting(samplers.positions(SIZE), shares.append, every=2)
    drawn = jax.jit(sample_fn(5, reported))(1.0, keys)
    jax.effects_barrier()
    np.testing.assert_array_equal(drawn, filmed)
    np.testing.assert_array_equal(drawn.reshape(5, SIZE), x)
    np.testing.assert_allclose(sorted(shares), [0.5, 1.0])
    assert drawn.dtype == jnp.int32


def test_known_tokens_stay_and_the_rest_follows_them():
    """Of a kept upper half the rest has the law given it, exactly: the order is the same."""
    known = jnp.broadcast_to(jnp.array([[1], [0]])[:, None], (2, 2, 1)).at[0, 1].set(2)[None].repeat(DRAWS, 0)
    mask = jnp.array([1.0, 0.0]).reshape(2, 1, 1)
    run = inpainting.replacement(PROCESS, known, mask)
    drawn = jax.jit(sample_fn(DRAWS, run=run))(1.0, rng.root(0))
    assert (drawn[:, 0] == known[:, 0]).all()
    given = (ALL[:, 0, :, 0] == [1, 2]).all(-1)
    whole = law()
    expected = np.where(given, whole, 0.0)
    assert misfit(drawn, expected / expected.sum()) < 1
    lower = np.array([whole[(ALL[:, 1] == picture[1]).all(axis=(1, 2))].sum() for picture in ALL])
    assert misfit(drawn, np.where(given, lower, 0.0)) > 2  # what the lower half is by itself


def test_guidance_changes_every_token_s_law():
    """The law in proportion to p(x_i | y)^2 / p(x_i), token by token, and its exact likelihood."""
    guide = guidance.classifier_free(guidance.replacing(label=0), 2.0)
    told = {"label": jnp.ones(DRAWS, jnp.int32)}
    drawn = jax.jit(sample_fn(DRAWS, guide=guide))(1.0, rng.root(0), told)

    def likely(guide):
        exact = likelihood.make_exact_fn(network(), LOGITS, guide)
        cond = {"label": jnp.ones(len(ALL), jnp.int32)}
        return np.exp(np.asarray(exact(1.0, rng.of_batch(rng.root(0), len(ALL)), ALL, cond).log_prob, np.float64))

    np.testing.assert_allclose(likely(guide).sum(), 1, rtol=1e-5)
    assert misfit(drawn, likely(guide)) < 1
    assert misfit(drawn, likely(guidance.conditioned)) > 2


def test_eight_devices_draw_the_same():
    """Keys spread over a mesh of explicit axes."""
    keys = rng.per_example(rng.root(5), jnp.arange(8))
    drawn = jax.jit(sample_fn(8))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    spread = drawn(1.0, jax.device_put(keys, NamedSharding(mesh, PartitionSpec("data"))))
    np.testing.assert_array_equal(spread, drawn(1.0, keys))


def test_the_program_does_not_grow_with_the_number_of_positions():
    def program(side):
        drawn = sample_fn(2, size=side * side, shape=(side, side, 1))
        closed = jax.make_jaxpr(drawn)(1.0, rng.root(0))
        return sum(1 for line in str(closed).splitlines() if " = " in line)

    assert program(4) == program(12)


def test_mistakes_are_one_line():
    def traced(sampler, times, x, vocab=VOCAB):
        def denoise(x, t):
            return Categorical(jnp.zeros((*x.shape[:2], vocab)))

        keys = rng.of_batch(rng.root(0), len(x))
        return jax.eval_shape(lambda x: samplers.solve(sampler, times, denoise, x, keys), x)

    x = jnp.zeros((2, SIZE), jnp.int32)
    assert traced(samplers.positions(SIZE), timesteps.linear(SIZE), x).shape == x.shape
    with pytest.raises(InputError, match="4 tokens are drawn in as many steps, one after another, not in 3"):
        traced(samplers.positions(SIZE), timesteps.linear(3), x)
    with pytest.raises(InputError, match="has 4 tokens an example, not 5"):
        traced(samplers.positions(5), timesteps.linear(5), x)
    with pytest.raises(InputError, match="the network answers"):
        traced(samplers.positions(SIZE), timesteps.linear(SIZE), x[..., None])
    with pytest.raises(InputError, match=r"a vocabulary of 3 take logits \(2, 4, 3\), not \(2, 4, 5\)"):
        traced(samplers.ancestral(PROCESS, end=draw), timesteps.linear(SIZE), x, vocab=5)
    with pytest.raises(InputError, match="prior at t = 1 alone"):
        PROCESS.prior(rng.root(0), SHAPE, 0.5)
    with pytest.raises(InputError, match="tokens are integers"):
        likelihood.make_exact_fn(network(), LOGITS)(1.0, None, jnp.zeros((2, *SHAPE)))


def test_tokens_are_hidden_from_the_last_to_the_first():
    """Whatever the rounding of the times: at n / N, n tokens are hidden, for thousands of them."""
    size = 64 * 64
    x0 = jnp.arange(size, dtype=jnp.int32).reshape(64, 64) % VOCAB
    times = jnp.asarray(timesteps.linear(size), jnp.float32)
    hidden = jax.jit(jax.vmap(lambda t: (PROCESS.corrupt(rng.root(0), x0, t)[0] == VOCAB).sum()))(times)
    np.testing.assert_array_equal(hidden, np.arange(size + 1)[::-1])
    some = PROCESS.corrupt(rng.root(0), x0, 0.25)[0]
    np.testing.assert_array_equal(some, x0.at[48:].set(VOCAB))
