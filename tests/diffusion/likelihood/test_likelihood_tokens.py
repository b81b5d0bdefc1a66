"""Bounds for tokens on a law that can be enumerated: three tokens that depend on one another."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Categorical, safe_log
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import likelihood, losses_discrete, parameterizations, processes
from diffusion_jax.diffusion.likelihood import (
    continuous_bound,
    discrete_bound,
    evaluating,
    make_discrete_bound_fn,
    matrix_prior,
    mixture_prior,
)
from diffusion_jax.diffusion.losses import integrand
from diffusion_jax.diffusion.processes.categorical import categorical, cosine_alpha, general, linear_alpha

K, L, MASK = 3, 3, 2
DATA = np.array(list(itertools.product(range(2), repeat=L)))  # every sequence of tokens 0 and 1
P = np.random.default_rng(0).dirichlet(np.ones(len(DATA)))
ENTROPY = -np.sum(P * np.log2(P)) / L  # bits a token
STATES = np.array(list(itertools.product(range(K), repeat=L)))
PI = {"mask": np.eye(K)[MASK], "uniform": np.ones(K) / K, "other": np.array([0.5, 0.2, 0.3])}
KEY = jax.random.split(jax.random.key(0), 1)


def falling(t):
    """An alpha that does not end at 0."""
    return 1 - 0.9 * t


def matrix(alpha, pi, t):
    """q(x_t | x0), [K, K]."""
    return alpha(t) * np.eye(K) + (1 - alpha(t)) * pi


def posterior(alpha, pi, t):
    """P(x0^l | x_t) of every state, [27, L, K], and q(x_t | x0), [8, 27]."""
    q = matrix(alpha, pi, np.asarray(t))
    reach = np.stack([q[DATA[:, None, n], STATES[None, :, n]] for n in range(L)]).prod(0)
    joint = P[:, None] * reach
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(joint / joint.sum(0))
    return np.einsum("ds,dlk->slk", share, np.eye(K)[DATA]), reach


def enumerated(alpha, pi, times):
    """The bound of the exact denoiser in bits a token, summed over x0, x_t and x_s by Bayes' formula."""
    first = matrix(alpha, pi, times[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.nansum(P @ np.where(first > 0, first * np.log2(first / pi), 0).sum(1)[DATA])
        for t, s in itertools.pairwise(times):
            q_t, q_s = matrix(alpha, pi, t), matrix(alpha, pi, s)
            kept = alpha(t) / alpha(s)
            between = kept * np.eye(K) + (1 - kept) * pi
            step = np.nan_to_num(q_s[:, None, :] * between.T[None] / q_t[:, :, None])  # [x0, x_t, x_s]
            belief, reach = posterior(alpha, pi, t)
            # p_k in proportion to p(x0 = k | x_t), where x_t can come from k at all
            kernel = np.einsum("slk,slkj->slj", belief, step[:, STATES].transpose(1, 2, 0, 3))
            kernel = kernel / kernel.sum(-1, keepdims=True)
            truth = step[DATA[:, None], STATES[None]]  # [8, 27, L, K]
            kl = np.where(truth > 0, truth * np.log2(truth / kernel), 0).sum((-1, -2))
            total += np.nansum(P[:, None] * reach * kl)
    return total / L


def exact(alpha, pi, bias=0.0):
    """The denoiser that knows P(x0^l | x_t), by looking the state up; `bias` is added to its logits."""

    def denoise(x, t):
        q = alpha(t) * jnp.eye(K) + (1 - alpha(t)) * pi
        joint = P * q[DATA, x[:, None]].prod(-1)  # [B, 8]
        belief = jnp.einsum("bd,dlk->blk", joint / joint.sum(-1, keepdims=True), jnp.eye(K)[DATA])
        return Categorical(bias + safe_log(belief))

    return denoise


def expected(alpha, pi, times, prior, *biases):
    """Sum over x0 and x_t of P q_t times the bound's terms, x_t being given: without a bias, and with each."""
    process = categorical(alpha, pi)
    x0, state = (a.ravel() for a in np.indices((len(DATA), len(STATES))))

    def one(x0, state, bias):
        rigged = process._replace(corrupt=lambda key, x0, t: (state, None))
        return discrete_bound(exact(alpha, pi, bias), rigged, times, prior, x0[None], KEY)

    def total(bound):
        terms = np.concatenate([bound.terms[:, 0], bound.decoder], axis=1)
        prior = P @ np.asarray(bound.prior)[:: len(STATES), 0]
        return prior + np.sum(np.where(weights > 0, weights * terms, 0))

    weights = np.stack([(P[:, None] * posterior(alpha, pi, t)[1]).ravel() for t in times[:-1]], axis=1)
    every = jax.jit(jax.vmap(one, (0, 0, None)))
    return [total(every(DATA[x0], STATES[state], bias)) for bias in (np.zeros(K), *biases)]


@pytest.mark.parametrize(("name", "alpha"), [("mask", cosine_alpha), ("uniform", falling), ("other", linear_alpha)])
def test_a_chains_bound_is_the_enumerated_one(x64, name, alpha):
    """An uneven grid, the prior's term and the decoder's among it; any other network costs more."""
    times = np.array([1.0, 0.85, 0.5, 0.3, 0.05, 0.0])
    bound, biased = expected(alpha, PI[name], times, mixture_prior(alpha, PI[name]), np.array([0.5, 0.0, 0.0]))
    want = enumerated(alpha, PI[name], times)
    np.testing.assert_allclose(bound, want, rtol=1e-10)
    assert want > ENTROPY
    assert biased > want + 0.003


def test_priors():
    x0 = jnp.array([[0, 1, 2]])
    for pi in PI.values():
        np.testing.assert_array_equal(mixture_prior(linear_alpha, pi)(x0), 0)
    assert np.isinf(mixture_prior(falling, PI["mask"])(x0)[0, :2]).all()
    law = 0.1 * np.eye(K) + 0.9 * PI["other"]
    np.testing.assert_allclose(mixture_prior(falling, PI["other"])(x0)[0], np.sum(law * np.log(law / PI["other"]), 1))


def test_the_bound_falls_to_the_entropy_at_first_order(x64):
    gaps, pi = [], PI["mask"]
    for num in (16, 32):
        (total,) = expected(linear_alpha, pi, np.linspace(1, 0, num + 1), mixture_prior(linear_alpha, pi))
        gaps.append(total - ENTROPY)
    assert gaps[1] > 0
    assert abs(np.log2(gaps[0] / gaps[1]) - 1) < 0.1, gaps


def test_any_matrices_cost_one_token_its_entropy_and_the_priors_divergence(x64):
    """The reverse of one token's chain is exact: bound = H(x0) + KL(p(x_1) || prior), on a strided grid too."""
    num, p = 6, np.array([0.5, 0.3, 0.2])
    steps = (np.random.default_rng(1).dirichlet(np.ones(K), size=(num, K)) + np.eye(K)) / 2
    process, products = general(steps), [np.eye(K)]
    for step in steps:
        products.append(products[-1] @ step)
    products = np.stack(products)
    end, prior = p @ products[-1], products[-1].mean(0)
    want = -np.sum(p * np.log2(p)) + np.sum(end * np.log2(end / prior))
    k, i = np.indices((K, K)).reshape(2, -1)

    def denoise(x, t):
        joint = p[:, None] * jnp.asarray(products)[jnp.rint(t * num).astype(int)]
        return Categorical(jnp.log(joint / joint.sum(0)).T[x])

    for times in (np.arange(num, -1, -1) / num, np.array([6, 4, 1, 0]) / num):

        def one(x0, state, times=times):
            rigged = process._replace(corrupt=lambda key, x0, t: (state[None], None))
            return discrete_bound(denoise, rigged, times, matrix_prior(steps), x0[None, None], KEY)

        bound = jax.jit(jax.vmap(one))(k, i)
        terms = np.concatenate([bound.terms[:, 0], bound.decoder], axis=1)
        weights = p[:, None] * products[np.rint(times[:-1] * num).astype(int)]
        total = np.sum(weights.reshape(-1, K * K).T * terms) + p @ np.asarray(bound.prior)[::K, 0]
        np.testing.assert_allclose(total, want, rtol=1e-10)


# ---- With its own noise, 4096 sequences, float32.


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return jnp.asarray(DATA[rng.choice(len(DATA), 4096, p=P)], jnp.int32), jax.random.split(jax.random.key(0), 4096)


def network(alpha, pi):
    return lambda params, x, t, cond=None: exact(alpha, pi, params)(x, t[0]).logits


def deviation(values, want):
    return float((values.mean() - want) / (values.std() / len(values) ** 0.5))


def test_its_mean_over_data_and_noise_is_the_enumerated_one(drawn):
    """Within 4.5 standard errors, a false alarm in 150,000; seeds 0."""
    pi, times = PI["uniform"], np.linspace(1, 0, 6)
    logits = parameterizations.logits(lambda t: t)
    prior = mixture_prior(linear_alpha, pi)
    process = categorical(linear_alpha, pi)
    bound_fn = jax.jit(make_discrete_bound_fn(network(linear_alpha, pi), logits, process, times, prior))
    x0, keys = drawn
    bound = bound_fn(jnp.zeros(K), keys, x0)
    assert bound.terms.shape == (4096, 4)
    assert abs(deviation(bound.total, enumerated(linear_alpha, pi, times))) < 4.5
    biased = bound_fn(jnp.array([2.0, 0.0, 0.0]), keys, x0)
    assert deviation(biased.total, enumerated(linear_alpha, pi, times)) > 9  # control: another network


def test_a_bound_does_not_depend_on_the_batch_or_on_devices(drawn):
    """Eight examples on one device, and two on each of four."""
    x0, keys = (a[:8] for a in drawn)
    process = processes.masked(cosine_alpha, K, MASK)
    read = parameterizations.substitution(MASK, lambda t: t)
    bound_fn = make_discrete_bound_fn(
        lambda params, x, t: params[x] + t[:, None, None], read, process, np.linspace(1, 0, 5),
        mixture_prior(cosine_alpha, PI["mask"]),
    )  # fmt: skip
    params = jax.random.normal(jax.random.key(0), (K, K))
    whole = jax.jit(bound_fn)(params, keys, x0)
    spread = jax.pmap(bound_fn, in_axes=(None, 0, 0))(params, keys.reshape(4, 2), x0.reshape(4, 2, L))
    np.testing.assert_allclose(spread.total.ravel(), whole.total, rtol=1e-6)
    assert whole.mse_x0 is None
    assert (np.asarray(whole.prior) == 0).all()


# ---- Continuous time.


def losses(pi):
    """MDLM's and SEDD's, of the exact network."""
    process, apply = categorical(linear_alpha, pi), evaluating(network(linear_alpha, pi))

    def exactly(params, x, t, dropout_keys=None):  # a time for each example
        return jax.vmap(lambda x, t: apply(params, x[None], t[None])[0])(x, t)

    logits = parameterizations.logits(lambda t: t)
    if pi[MASK] == 1:
        substitution = parameterizations.substitution(MASK, lambda t: t)
        return integrand(losses_discrete.mdlm(exactly, substitution, process, linear_alpha))
    read = losses_discrete.to_log_ratios(linear_alpha, pi, logits)
    return integrand(losses_discrete.sedd(exactly, read, process, linear_alpha, pi))


@pytest.mark.parametrize("name", ["mask", "uniform"])
def test_the_continuous_bound_of_the_exact_network_is_the_entropy(drawn, name):
    """MDLM under masks, SEDD under uniform noise; within 4.5 standard errors, a false alarm in 150,000; seeds 0."""
    x0, keys = drawn
    loss = losses(PI[name])
    bound_fn = jax.jit(lambda params: continuous_bound(loss, params, x0, keys, draws=16, last=1 - 1e-5).total)
    exactly = bound_fn(jnp.zeros(K))
    assert exactly.shape == (4096,)
    assert abs(deviation(exactly, ENTROPY)) < 4.5
    assert deviation(bound_fn(jnp.array([2.0, 0.0, 0.0])), ENTROPY) > 9  # control: another network


def test_its_times_are_stratified_and_each_examples_own():
    """The mean of t^2 over 64 strata is 1/3 to 0.5 / 64; over independent draws it varies by 0.04."""
    keys, x0 = jax.random.split(jax.random.key(0), 8), jnp.zeros((8, 2), jnp.int32)

    def loss(keys, params, x0, t):
        return params * t**2

    bound_fn = jax.jit(lambda keys: continuous_bound(loss, np.log(2), x0, keys, draws=64))
    bound = bound_fn(keys)
    np.testing.assert_allclose(bound.total, 1 / 3, atol=0.5 / 64)
    strata = np.floor((np.asarray(bound.times) - 1e-5) / (1 - 1e-5) * 64)
    np.testing.assert_array_equal(strata, np.tile(np.arange(64), (8, 1)))
    assert len(np.unique(bound.times[:, 0])) == 8
    np.testing.assert_array_equal(bound_fn(keys[::-1]).times, bound.times[::-1])


def test_every_time_has_noise_of_its_own():
    keys = jax.random.split(jax.random.key(0), 3)

    def loss(keys, params, x0, t):
        return jax.vmap(jax.random.uniform)(keys)

    bound = continuous_bound(loss, None, jnp.zeros((3, 2), jnp.int32), keys, draws=4)
    drawn = [[jax.random.uniform(jax.random.fold_in(key, n)) for n in range(1, 5)] for key in keys]
    np.testing.assert_allclose(bound.terms * np.log(2), drawn, rtol=1e-6)


def test_a_network_is_evaluated_without_dropout():
    def apply(params, *told, dropout_keys=None):
        return params, told, dropout_keys

    assert evaluating(apply)("params", 1, 2, dropout_keys=3) == ("params", (1, 2), None)


def test_the_program_does_not_grow_with_the_steps():
    calls, sizes = [], []

    def denoise(x, t):
        calls.append(1)
        return Categorical(jnp.zeros((*x.shape, K)) + t)

    prior = mixture_prior(linear_alpha, PI["uniform"])
    process = processes.uniform(linear_alpha, K)
    for num in (4, 400):
        times = np.linspace(1, 0, num + 1)
        program = jax.make_jaxpr(lambda x0, t=times: discrete_bound(denoise, process, t, prior, x0, KEY))(DATA[:1])
        sizes.append(len(str(program)))
    assert len(calls) == 2
    assert abs(sizes[1] - sizes[0]) < 0.05 * sizes[0]


def test_bad_input_is_named():
    pi, x0 = PI["mask"], jnp.zeros((1, L), jnp.int32)
    arguments = exact(linear_alpha, pi), categorical(linear_alpha, pi)
    prior = mixture_prior(linear_alpha, pi)
    with pytest.raises(InputError, match="ends at 0"):
        discrete_bound(*arguments, [1.0, 0.5], prior, x0, KEY)
    with pytest.raises(InputError, match="tokens are integers"):
        discrete_bound(*arguments, [1.0, 0.0], prior, x0 / 2, KEY)
    with pytest.raises(InputError, match="one key an example"):
        discrete_bound(*arguments, [1.0, 0.0], prior, x0, KEY[0])
    for wrong in ({"draws": 0}, {"first": 0.0}, {"last": 1.1}, {"first": 0.5, "last": 0.4}):
        with pytest.raises(InputError, match="draws >= 1"):
            likelihood.continuous_bound(None, None, x0, KEY, **wrong)
