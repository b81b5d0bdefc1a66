"""The bounds on a law that can be enumerated: three tokens that depend on one another, and their exact denoiser."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Categorical, certain, draw, safe_log
from diffusion_jax.diffusion import losses, losses_discrete, parameterizations, samplers, timesteps
from diffusion_jax.diffusion.processes.categorical import categorical, cosine_alpha, general, linear_alpha

pytestmark = pytest.mark.slow

K, L, MASK = 3, 3, 2
DATA = np.array(list(itertools.product(range(2), repeat=L)))  # every sequence of tokens 0 and 1
P = np.random.default_rng(0).dirichlet(np.ones(len(DATA)))
ENTROPY = -np.sum(P * np.log(P))
STATES = np.array(list(itertools.product(range(K), repeat=L)))
PI = {"mask": np.eye(K)[MASK], "uniform": np.ones(K) / K, "other": np.array([0.5, 0.2, 0.3])}
ALPHAS = [linear_alpha, cosine_alpha]


def transition(alpha, pi, t):
    return alpha(t)[..., None, None] * np.eye(K) + (1 - alpha(t))[..., None, None] * pi


def exact(alpha, pi):
    """The network that knows log p(x0^l | x_t) of each token; `params` are added to it."""

    def apply(params, x, t, dropout_keys):
        q = transition(alpha, pi, t)  # [B, K, K]
        likelihood = jax.vmap(lambda q, x: q[DATA, x].prod(-1))(q, x)  # [B, sequences]
        posterior = P * likelihood
        posterior /= posterior.sum(-1, keepdims=True)
        return params + safe_log(jnp.einsum("bn,nlk->blk", posterior, np.eye(K)[DATA]))

    return apply


def expected(make, process, alpha, pi, times, weights, params=0.0):
    """Sum over x0, x_t and times of P(x0) q(x_t | x0) weight(t) loss, with `make(process) -> loss`.

    `process` is rigged to give each x_t in turn; the rest is the loss's own.
    """
    q = transition(alpha, pi, np.asarray(times))
    reach = np.stack([q[:, DATA[:, None, n], STATES[None, :, n]] for n in range(L)]).prod(0)
    weight = weights[:, None, None] * P[:, None] * reach
    index = np.argwhere(weight > 0)

    def one(n, x0, x_t):
        rigged = process._replace(corrupt=lambda key, x0, t: (x_t, None))
        loss = losses.integrand(make(rigged))
        return loss(jax.random.split(jax.random.key(0), 1), params, x0[None], jnp.asarray(times)[n][None])[0]

    terms = jax.jit(jax.vmap(one))(index[:, 0], DATA[index[:, 1]], STATES[index[:, 2]])
    return L * float(np.sum(weight[tuple(index.T)] * np.asarray(terms)))


def nodes(num, ends):
    """Gauss-Legendre on [0, 1], with nodes that crowd at its ends: t' vanishes there to order `ends`."""
    u, w = np.polynomial.legendre.leggauss(num)
    slope = np.polynomial.Polynomial([0.0, 1.0, -1.0]) ** ends  # (u - u^2)^ends
    rise = slope.integ()
    u, scale = (u + 1) / 2, rise(1.0)
    return rise(u) / scale, w / 2 * slope(u) / scale


def reading(pi):
    """`substitution` for masks, else `logits`; the network is given t itself."""
    return (
        parameterizations.substitution(MASK, lambda t: t) if pi[MASK] == 1 else parameterizations.logits(lambda t: t)
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_mdlms_bound_of_the_exact_conditional_is_the_entropy(x64, alpha):
    """For any alpha. With the linear one the integrand is a polynomial of degree 2: two nodes are exact."""
    pi = PI["mask"]
    times, weights = nodes(2 if alpha is linear_alpha else 20, 0)

    def bound(params=0.0):
        def make(process):
            return losses_discrete.mdlm(
                exact(alpha, pi), parameterizations.substitution(MASK, lambda t: t), process, alpha
            )

        return expected(make, categorical(alpha, pi), alpha, pi, times, weights, params)

    np.testing.assert_allclose(bound(), ENTROPY, rtol=1e-12)
    assert bound(np.array([0.3, 0.0, 0.0])) > ENTROPY + 0.01  # control: any other network costs more


@pytest.mark.parametrize("pi", PI.values(), ids=PI)
def test_sedds_bound_of_the_exact_conditional_is_the_entropy(x64, pi):
    times, weights = nodes(40, 6)
    alpha = linear_alpha

    def bound(params=0.0):
        def make(process):
            read = losses_discrete.to_log_ratios(alpha, pi, reading(pi))
            return losses_discrete.sedd(exact(alpha, pi), read, process, alpha, pi)

        return expected(make, categorical(alpha, pi), alpha, pi, times, weights, params)

    np.testing.assert_allclose(bound(), ENTROPY, rtol=1e-7)
    assert bound(np.array([0.3, 0.0, 0.0])) > ENTROPY + 0.01


@pytest.mark.parametrize("pi", PI.values(), ids=PI)
def test_d3pms_bound_falls_to_the_entropy_at_first_order(x64, pi):
    """Tokens of one step are drawn independently, which costs O(1 / T)."""
    alpha, gaps = linear_alpha, []
    for num in (8, 16, 32):

        def make(process, num=num):
            return losses_discrete.d3pm(exact(alpha, pi), reading(pi), process, num)

        times = np.arange(1, num + 1) / num
        gaps.append(expected(make, categorical(alpha, pi), alpha, pi, times, np.full(num, 1 / num)) - ENTROPY)
    orders = np.log2(np.array(gaps[:-1]) / np.array(gaps[1:]))
    assert min(gaps) > 0, gaps
    assert ((orders > 0.9) & (orders < 1.15)).all(), (gaps, orders)


def test_one_token_costs_its_entropy_in_any_number_of_steps(x64):
    """Any matrices: the steps sum to H(x0) - I(x0; x_1), for the chain's reverse is exact."""
    num, p = 5, np.array([0.5, 0.3, 0.2])
    steps = np.random.default_rng(1).dirichlet(np.ones(K), size=(num, K)) + np.eye(K)
    process = general(steps / 2)
    joint, total = np.diag(p), 0.0
    for i in range(1, num + 1):
        joint = joint @ steps[i - 1] / 2
        posterior = joint / joint.sum(0)

        def term(k, x_t, i=i, posterior=posterior):
            rigged = process._replace(corrupt=lambda key, x0, t: (x_t[None], None))
            loss = losses_discrete.d3pm(
                lambda params, x, *_, **__: jnp.log(jnp.asarray(posterior.T))[x],
                parameterizations.logits(lambda t: t), rigged, num,
            )  # fmt: skip
            loss = losses.integrand(loss)
            return loss(jax.random.split(jax.random.key(0), 1), None, k[None, None], jnp.array([i / num]))[0]

        k, x_t = np.indices((K, K)).reshape(2, -1)
        total += np.sum(joint[k, x_t] * jax.jit(jax.vmap(term))(k, x_t)) / num
    information = np.sum(joint * np.log(joint / joint.sum(0) / p[:, None]))
    np.testing.assert_allclose(total, -np.sum(p * np.log(p)) - information, rtol=1e-11)


def test_score_entropy_under_masks_is_mdlm_term_by_term(x64):
    """The same network, the same noise, any times: not only the same mean."""
    pi, alpha = PI["mask"], cosine_alpha
    keys = jax.random.split(jax.random.key(0), 64)
    x0 = jax.random.randint(jax.random.key(1), (64, 5), 0, 2)
    process, read = categorical(alpha, pi), parameterizations.substitution(MASK, lambda t: t)

    def apply(params, x, time, dropout_keys):
        return jax.random.normal(jax.random.key(2), (64, 5, K)) + params

    t = jax.random.uniform(jax.random.key(3), (64,), minval=0.01, maxval=0.99)
    mdlm = losses_discrete.mdlm(apply, read, process, alpha)
    ratios = losses_discrete.to_log_ratios(alpha, pi, read)
    sedd = losses_discrete.sedd(apply, ratios, process, alpha, pi)

    def of_criterion(loss, bias):
        terms = losses.integrand(loss)(keys, bias, x0, t)
        return terms.mean(), terms

    for_bias = jax.jit(jax.grad(of_criterion, argnums=1, has_aux=True), static_argnums=0)
    (slope, terms), (slope_sedd, terms_sedd) = for_bias(mdlm, jnp.zeros(K)), for_bias(sedd, jnp.zeros(K))
    np.testing.assert_allclose(terms_sedd, terms, rtol=1e-11)
    np.testing.assert_allclose(slope_sedd, slope, rtol=1e-10)
    assert np.abs(slope).max() > 1e-3


@pytest.mark.parametrize("pi", PI.values(), ids=PI)
def test_ratios_are_marginal_ratios_and_give_the_estimate_back(x64, pi):
    """p_t(y) / p_t(x) of all 27 states and of every token that pi can draw, by enumeration."""
    alpha, t = cosine_alpha, 0.4
    q = transition(alpha, pi, np.asarray(t))
    marginal = P @ np.stack([q[DATA[:, None, n], STATES[None, :, n]] for n in range(L)]).prod(0)
    x = jnp.asarray(STATES)

    @jax.jit
    def there_and_back():
        estimate = Categorical(exact(alpha, pi)(0.0, x, jnp.full(len(x), t), None))
        log_ratio = losses_discrete.ratios_from_estimate(alpha, pi, estimate, x, t)
        return estimate, log_ratio, losses_discrete.from_log_ratios(alpha, pi, lambda t: t).read(log_ratio, x, t)

    estimate, log_ratio, back = there_and_back()
    ratio, lookup = np.exp(log_ratio), marginal.reshape([K] * L)
    for n, state in enumerate(STATES):
        for place, y in itertools.product(range(L), range(K)):
            if pi[state[place]] > 0:
                other = np.array(state)
                other[place] = y
                np.testing.assert_allclose(ratio[n, place, y], lookup[tuple(other)] / marginal[n], rtol=1e-12)
    np.testing.assert_allclose(jax.nn.softmax(back.logits), jax.nn.softmax(estimate.logits), atol=1e-12)


def test_substitution_never_predicts_the_mask_and_keeps_what_is_revealed():
    read = parameterizations.substitution(MASK, lambda t: t).read
    x_t = jnp.array([[MASK, 0, 1]])
    law = jax.nn.softmax(read(jnp.ones((1, 3, K)), x_t, 0.5).logits)
    np.testing.assert_allclose(law, [[[0.5, 0.5, 0], [1, 0, 0], [0, 1, 0]]])
    slope = jax.grad(lambda z: read(z, x_t, 0.5).log_prob(jnp.array([[1, 0, 1]])).sum())(jnp.ones((1, 3, K)))
    np.testing.assert_allclose(slope, [[[-0.5, 0.5, 0], [0, 0, 0], [0, 0, 0]]])


def test_a_chain_ends_without_masks_and_keeps_its_length():
    """The whole of `make_sample_fn`, with a network that knows nothing and would like to predict masks."""
    process = categorical(cosine_alpha, PI["mask"])
    sample_fn = samplers.make_sample_fn(
        lambda params, x, time: jnp.zeros((*x.shape, K)).at[..., MASK].set(5.0),
        parameterizations.substitution(MASK, lambda t: t),
        process,
        samplers.ancestral(process, end=draw),
        timesteps.linear(6),
        batch=4,
        shape=(9,),
    )
    x = jax.jit(sample_fn)(None, jax.random.key(0))
    assert x.shape == (4, 9)
    assert x.dtype == jnp.int32
    assert set(np.unique(x)) == {0, 1}


def test_score_entropy_is_a_divergence():
    log_s = jnp.array([0.3, -2.0, 0.0, -1.0])
    np.testing.assert_allclose(losses_discrete.score_entropy(log_s, log_s), 0, atol=1e-7)
    assert (losses_discrete.score_entropy(log_s, log_s + 0.5) > 0).all()
    np.testing.assert_allclose(losses_discrete.score_entropy(log_s, -jnp.inf), jnp.exp(log_s))
    zero = jnp.full(2, -jnp.inf)
    np.testing.assert_array_equal(losses_discrete.score_entropy(zero, zero), 0)


@pytest.mark.parametrize("pi", [PI["mask"], PI["other"]], ids=["mask", "other"])
def test_losses_are_pure_functions_with_finite_gradients(pi):
    """float32, compiled, with all the randomness they use; weights apply by time."""
    alpha, process = linear_alpha, categorical(linear_alpha, pi)
    keys = jax.random.split(jax.random.key(0), 16)
    x0 = jax.random.randint(jax.random.key(1), (16, 6), 0, 2)

    def apply(params, x, time, dropout_keys):
        return params[x] + time[:, None, None]

    t = jnp.arange(1, 17) % 10 / 10 + 0.1  # on the table of d3pm's 10 steps
    entropy = losses_discrete.cross_entropy(apply, reading(pi), process)
    every = [
        entropy,
        losses_discrete.d3pm(apply, reading(pi), process, 10),
        losses_discrete.sedd(apply, losses_discrete.log_ratios(lambda t: t), process, alpha, pi),
    ]
    params = jax.random.normal(jax.random.key(2), (K, K))
    for loss in every:

        def mean(params, loss=loss):
            value = losses.integrand(loss)(keys, params, x0, jnp.minimum(t, 0.99))
            return value.mean(), value

        slope, value = jax.jit(jax.grad(mean, has_aux=True))(params)
        assert value.shape == (16,)
        assert np.isfinite(value).all()
        assert np.isfinite(slope).all()
        assert np.abs(slope).max() > 1e-4
    double = losses.weighted(entropy, lambda t: 2 + 0 * t)
    once, twice = jax.jit(lambda: [losses.integrand(loss)(keys, params, x0, t) for loss in (entropy, double)])()
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_certainty_about_the_truth_costs_nothing(x64):
    x0 = jnp.array([[0, 1, 1, 0]])
    process = categorical(linear_alpha, PI["uniform"])

    def apply(params, x, time, dropout_keys):
        return certain(x0, K).logits

    @jax.jit
    def cost(step):
        loss = losses.integrand(losses_discrete.d3pm(apply, parameterizations.logits(lambda t: t), process, 10))
        return loss(jax.random.split(jax.random.key(0), 1), None, x0, jnp.array([step / 10]))

    for step in (1, 5, 10):
        np.testing.assert_allclose(cost(step), 0, atol=1e-12)
