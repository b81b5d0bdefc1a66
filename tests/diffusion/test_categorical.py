"""Discrete processes against chains of a few states, enumerated in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Categorical, certain, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers, timesteps
from diffusion_jax.diffusion.processes import product
from diffusion_jax.diffusion.processes.categorical import (
    categorical,
    cosine_alpha,
    general,
    linear_alpha,
    masked,
    uniform,
)
from diffusion_jax.diffusion.processes.deletion import deletion

pytestmark = pytest.mark.slow

K, T = 4, 10
LAWS = {"uniform": np.ones(K) / K, "mask": np.eye(K)[3], "other": np.array([0.1, 0.2, 0.3, 0.4])}
INTERVALS = [(0.6, 0.3), (1.0, 0.9), (0.1, 0.0), (1.0, 0.0)]
STEPS = np.random.default_rng(0).dirichlet(np.ones(K), size=(T, K)) * 0.3 + 0.7 * np.eye(K)


def mixture(keep, pi):
    return keep * np.eye(K) + (1 - keep) * pi


def chain(first, last):
    out = np.eye(K)
    for step in STEPS[round(first * T) : round(last * T)]:
        out = out @ step
    return out


def cases():
    """Name, process, and its matrices by definition, `(s, t) -> Q_{t|s}`."""
    for name, pi in LAWS.items():
        alpha = cosine_alpha if name == "other" else linear_alpha

        def matrix(s, t, alpha=alpha, pi=pi):
            return mixture(alpha(t) / alpha(s), pi)

        yield name, categorical(alpha, pi), matrix
    yield "general", general(STEPS), chain


CASES = [pytest.param(process, matrix, id=name) for name, process, matrix in cases()]


def bayes(p, onward, to_s, to_t):
    """p(x_s = j | x_t = i) at [i, j]: the mean over x0 ~ p[i] of q(x_s | x_t = i, x0)."""
    out = np.zeros((K, K))
    for i in range(K):
        for k in range(K):
            if to_t[k, i] > 0:
                out[i] += p[i, k] * to_s[k] * onward[:, i] / to_t[k, i]
    return out


@pytest.mark.parametrize(("t", "s"), INTERVALS)
@pytest.mark.parametrize(("process", "matrix"), CASES)
def test_the_bridge_is_bayes_rule_and_keeps_the_marginal(x64, process, matrix, t, s):
    to_s, onward, to_t = matrix(0, s), matrix(s, t), matrix(0, t)
    np.testing.assert_allclose(to_s @ onward, to_t, atol=1e-15)
    tokens = jnp.arange(K)
    for k in range(K):  # x0 known: sum over x_t of p(x_s | x_t, x0) p(x_t | x0) = p(x_s | x0)
        kernel = process.bridge(t, s)(Categorical(jnp.log(jnp.full((K, K), 1e-300)).at[:, k].set(0.0)), tokens)
        reached = to_t[k] > 0
        joint = to_t[k, :, None] * np.exp(jax.nn.log_softmax(kernel.logits))
        np.testing.assert_allclose(joint[reached].sum(0), to_s[k], atol=1e-13)
    p = np.random.default_rng(1).dirichlet(np.ones(K), size=K)
    p *= to_t.T > 0  # estimates that know where x_t may come from
    possible = p.sum(1) > 0
    p[~possible] = 1
    p /= p.sum(1, keepdims=True)
    kernel = process.bridge(t, s)(Categorical(jnp.asarray(np.log(np.maximum(p, 1e-300)))), tokens)
    ours = np.exp(jax.nn.log_softmax(kernel.logits))
    np.testing.assert_allclose(ours[possible], bayes(p, onward, to_s, to_t)[possible], atol=1e-13)
    # Control: the matrix of a neighbouring time is told apart.
    if s > 0 and t < 1:
        assert np.abs(ours - bayes(p, matrix(s, t), matrix(0, s + 0.1), to_t))[possible].max() > 1e-3


def test_a_mixture_is_its_own_matrices(x64):
    """The O(K) bridge and the O(K^2) one, at every step of a table and over strides."""
    x_t = jnp.arange(K)
    estimate = Categorical(jax.random.normal(jax.random.key(0), (K, K)))
    grid = np.arange(T + 1) / T
    for pi in LAWS.values():
        keep = linear_alpha(grid)
        table = general([mixture(b / a, pi) for a, b in itertools.pairwise(keep)])
        for t, s in INTERVALS:
            ours, theirs = (
                jax.nn.softmax(process.bridge(t, s)(estimate, x_t).logits)
                for process in (categorical(linear_alpha, pi), table)
            )
            known = np.isfinite(theirs).all(1)  # a revealed token at t = 1 is impossible: no posterior by matrices
            assert known.sum() >= 1
            np.testing.assert_allclose(ours[known], theirs[known], atol=1e-13)


def test_masks_are_lifted_or_stay_and_revealed_tokens_stay(x64):
    """MDLM's posterior: a mask stays with probability (1 - alpha_s) / (1 - alpha_t)."""
    process = masked(linear_alpha, K, 3)
    logits = jnp.array([0.3, -1.0, 2.0, -jnp.inf])
    kernel = process.bridge(0.8, 0.3)(Categorical(jnp.broadcast_to(logits, (2, K))), jnp.array([3, 1]))
    stays = 0.3 / 0.8
    want = np.append((1 - stays) * jax.nn.softmax(logits[:3]), stays)
    np.testing.assert_allclose(jax.nn.softmax(kernel.logits), [want, np.eye(K)[1]], atol=1e-14)
    # At t = 1 too, where alpha is 0: prompts may be set in the prior.
    kernel = process.bridge(1.0, 0.5)(Categorical(jnp.zeros((1, K))), jnp.array([1]))
    np.testing.assert_array_equal(jax.nn.softmax(kernel.logits), [np.eye(K)[1]])


@pytest.mark.parametrize("pi", LAWS.values(), ids=LAWS)
def test_traced_times_and_grids_agree_and_nothing_is_nan(pi):
    """Gradients too: at both ends, for huge logits and for estimates that exclude tokens (float32)."""
    process = categorical(cosine_alpha, pi)
    x_t = jnp.arange(K)[:, None]
    normal = jax.random.normal(jax.random.key(0), (K, 1, K))
    times = timesteps.linear(5)
    sliced = process.bridge(times[:-1], times[1:])

    @jax.jit
    def kernel_and_slope(step, logits):
        def total(logits):
            out = step(Categorical(logits), x_t).logits
            return jnp.sum(jnp.where(out > -jnp.inf, out, 0.0) * jnp.arange(K)), out

        return jax.grad(total, has_aux=True)(logits)

    traced = jax.jit(lambda t, s: process.bridge(t, s)(Categorical(normal), x_t).logits)
    for n, (t, s) in enumerate(itertools.pairwise(times)):
        step = jax.tree.map(lambda a, n=n: a[n], sliced)
        for logits in (normal, 1e4 * normal, jnp.where(jnp.eye(K)[3] > 0, -jnp.inf, normal)):
            slope, out = kernel_and_slope(step, logits)
            assert not jnp.isnan(out).any()
            assert not jnp.isnan(slope).any()
        np.testing.assert_allclose(
            jax.nn.softmax(traced(jnp.full(K, t), jnp.full(K, s))),
            jax.nn.softmax(step(Categorical(normal), x_t).logits),
            atol=1e-6,
        )


def test_general_takes_traced_times_and_grids(x64):
    process = general(STEPS)
    x_t, estimate = jnp.zeros((3, 2), int), Categorical(jax.random.normal(jax.random.key(0), (3, 2, K)))
    t, s = np.array([0.3, 1.0, 0.7]), np.array([0.0, 0.9, 0.3])
    traced = jax.jit(lambda t, s: process.bridge(t, s)(estimate, x_t).logits)(jnp.asarray(t), jnp.asarray(s))
    grid = process.bridge(t, s)
    for n in range(3):
        one = jax.tree.map(lambda a, n=n: a[n], grid)(estimate, x_t)
        np.testing.assert_allclose(jax.nn.softmax(traced[n]), jax.nn.softmax(one.logits[n]), atol=1e-13)


def test_coefficients_of_a_grid_are_float64():
    times = timesteps.linear(7)
    for process, shape in ((uniform(linear_alpha, K), (7,)), (general(STEPS[:7]), (7, K, K))):
        for leaf in jax.tree.leaves(process.bridge(times[:-1], times[1:])):
            assert leaf.dtype == np.float64
            assert leaf.shape == shape


@pytest.mark.parametrize(
    ("process", "matrix"),
    [(categorical(linear_alpha, LAWS["other"]), lambda s, t: mixture(1 - t, LAWS["other"])), (general(STEPS), chain)],
    ids=["mixture", "general"],
)
def test_corruption_and_prior_follow_their_laws(process, matrix):
    """Seed 0, 40,000 draws, chi-square of 3 degrees below 38.6: a false alarm in 5 * 10^7 tests."""
    num = 40_000

    def statistic(x, law):
        return float(((np.bincount(x, minlength=K) - num * law) ** 2 / (num * law)).sum())

    x_t, _ = process.corrupt(jax.random.key(0), jnp.full(num, 2), 0.4)
    assert x_t.dtype == jnp.int32
    assert statistic(x_t, matrix(0, 0.4)[2]) < 38.6
    assert statistic(x_t, matrix(0, 0.5)[2]) > 38.6  # control
    prior = process.prior(jax.random.key(0), (num,))
    assert statistic(prior, matrix(0, 1.0).mean(0)) < 38.6


def test_noise_says_how_the_tokens_came_to_be():
    process = masked(linear_alpha, K, 3)
    x0 = jax.random.randint(jax.random.key(0), (50,), 0, 3)
    corrupt = jax.jit(lambda t: process.corrupt(jax.random.key(1), x0, t))
    x_t, noise = corrupt(0.6)
    np.testing.assert_array_equal(x_t, jnp.where(noise.level < 0.4, x0, noise.token))
    np.testing.assert_array_equal(corrupt(0.0)[0], x0)
    np.testing.assert_array_equal(corrupt(1.0)[0], jnp.full(50, 3))
    np.testing.assert_array_equal(process.prior(jax.random.key(0), (5,)), jnp.full(5, 3))


@pytest.mark.parametrize(
    ("alpha", "pi"), [(linear_alpha, LAWS["mask"]), (cosine_alpha, LAWS["uniform"])], ids=["mask", "uniform"]
)
def test_an_exact_denoiser_samples_the_law_of_a_token(alpha, pi):
    """Exactly, as a product of kernels; and by drawing, from seed 0: 40,000 draws in 4 steps, chi-square of 2
    degrees below 34, a false alarm in 2 * 10^7 tests."""
    law, num, times = np.array([0.5, 0.3, 0.2, 0.0]), 40_000, timesteps.linear(4)
    process = categorical(alpha, pi)

    def denoise(x, t):
        hot = jax.nn.one_hot(x, K)
        likelihood = alpha(t) * hot + (1 - alpha(t)) * jnp.asarray(pi)[x][..., None]
        return Categorical(jnp.log(law * likelihood))

    def statistic(denoise):
        keys = jax.random.split(jax.random.key(0), num)
        x = jax.vmap(lambda key: process.prior(key, ()))(jax.random.split(jax.random.key(1), num))
        sampler = samplers.ancestral(process, end=draw)
        x = jax.jit(lambda x: samplers.solve(sampler, times, denoise, x, keys))(x)
        count = np.bincount(x, minlength=K)
        assert count[3] == 0
        return float(((count - num * law)[:3] ** 2 / (num * law[:3])).sum())

    reached = pi
    for t, s in itertools.pairwise(times):
        x = jnp.arange(K)
        reached = reached @ np.nan_to_num(jax.nn.softmax(process.bridge(t, s)(denoise(x, t), x).logits))
    np.testing.assert_allclose(reached, law, atol=1e-6)
    assert statistic(denoise) < 34
    # Control: logits 20% too large, a law too cool.
    assert statistic(lambda x, t: Categorical(1.2 * denoise(x, t).logits)) > 34


def test_categorical_is_a_law(x64):
    logits = jnp.array([[0.0, 1.0, -jnp.inf], [2.0, 0.0, 1.0]])
    law = jax.nn.softmax(logits)
    np.testing.assert_allclose(
        jnp.exp(Categorical(logits).log_prob(jnp.array([1, 2]))), [law[0, 1], law[1, 2]], rtol=1e-14
    )
    sample = Categorical(logits).sample(jax.random.key(0))
    assert sample.dtype == jnp.int32
    assert sample.shape == (2,)
    np.testing.assert_array_equal(certain(sample, 3).sample(jax.random.key(1)), sample)
    np.testing.assert_allclose(Categorical(logits).kl(Categorical(logits)), 0, atol=1e-15)
    other = Categorical(jnp.zeros((2, 3)))
    entropy = [-sum(p * np.log(p) for p in row if p > 0) for row in np.asarray(law)]
    np.testing.assert_allclose(Categorical(logits).kl(other), np.log(3) - np.array(entropy), rtol=1e-13)
    assert np.isfinite(jax.grad(lambda z: certain(sample, 3).kl(Categorical(z)).sum())(jnp.zeros((2, 3)))).all()


def refused(process, t, s):
    with pytest.raises(InputError, match="0 <= s < t <= 1"):
        process.bridge(t, s)


@pytest.mark.parametrize(("t", "s"), [(0.5, 0.5), (0.4, 0.5), (0.5, -0.1), (1.1, 0.5), (np.nan, 0.5)])
def test_every_discrete_process_refuses_times_that_do_not_fall(t, s):
    tokens = uniform(linear_alpha, K)
    for process in (tokens, masked(linear_alpha, K, 3), general(STEPS), deletion(linear_alpha), product(text=tokens)):
        refused(process, t, s)
        refused(process, np.array([0.9, t]), np.array([0.8, s]))  # a grid, for one of its steps


def test_only_the_last_transition_may_forget():
    """An absorbing end is fine, and so is a single step; the same matrix in the middle is named."""
    end = np.broadcast_to(LAWS["other"], (K, K))
    general([end])
    process = general([*STEPS[:7], end])
    assert np.isfinite(process.bridge(1.0, 7 / 8)(Categorical(jnp.zeros((K, K))), jnp.arange(K)).logits).all()
    merges = np.eye(K)[[0, 0, 2, 3]]
    for singular in (end, merges):
        with pytest.raises(InputError, match=r"^transition 3 of 8 is singular.*mix in some of the identity$"):
            general([*STEPS[:2], singular, *STEPS[2:7]])
        general([*STEPS[:2], 0.99 * singular + 0.01 * np.eye(K), *STEPS[2:7]])  # what the message advises


@pytest.mark.parametrize(
    ("alpha", "t", "s", "match"),
    [
        (lambda t: t, 0.5, 0.25, "not be 0.25 at 0.25 and 0.5 at 0.5"),
        (lambda t: 0.5 - t, 0.8, 0.5, "not be 0 at 0.5 and -0.3 at 0.8"),
        (lambda t: 0 * t, 0.8, 0.5, "not be 0 at 0.5 and 0 at 0.8"),
        (lambda t: np.abs(1 - 2 * t), np.array([0.2, 0.9]), np.array([0.1, 0.6]), "not be 0.2 at 0.6 and 0.8 at 0.9"),
        (lambda t: np.nan * t, 0.8, 0.5, "not be nan"),
    ],
)
def test_an_alpha_that_rises_or_ends_early_is_refused(alpha, t, s, match):
    with pytest.raises(InputError, match=match) as caught:
        categorical(alpha, LAWS["mask"]).bridge(t, s)
    assert "\n" not in str(caught.value)


def wrong_vocabulary(process):
    return process.bridge(0.5, 0.4)(Categorical(jnp.zeros((2, 3))), jnp.zeros(2, int))


def wrong_part_of_a_product():
    text = uniform(linear_alpha, K)
    estimate = {"a": Categorical(jnp.zeros((2, K))), "b": Categorical(jnp.zeros((2, 3)))}
    return product(a=text, b=text).bridge(0.5, 0.4)(estimate, {"a": jnp.zeros(2, int), "b": jnp.zeros(2, int)})


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (lambda: categorical(linear_alpha, [0.5, 0.6]), "pi must be"),
        (lambda: categorical(linear_alpha, [1.5, -0.5]), "pi must be"),
        (lambda: masked(linear_alpha, 4, 4), "the mask is one of"),
        (lambda: general(np.eye(3)), "matrices"),
        (lambda: general(np.ones((2, 3, 3))), "row 0 of transition 1 is not a law"),
        (lambda: general([np.eye(2), [[1, 0], [1.5, -0.5]]]), "row 1 of transition 2 is not a law"),
        (lambda: general(STEPS).bridge(0.55, 0.5), "not on the table"),
        (lambda: uniform(linear_alpha, K).bridge(0.5, 0.5), "0 <= s < t <= 1"),
        (lambda: wrong_vocabulary(uniform(linear_alpha, K)), "take logits"),
        (lambda: wrong_vocabulary(general(STEPS)), "take logits"),
        (lambda: wrong_vocabulary(masked(linear_alpha, K, 3)), "take logits"),
        (wrong_part_of_a_product, "take logits"),
    ],
)
def test_what_makes_no_sense_is_refused(bad, match):
    with pytest.raises(InputError, match=match):
        bad()
