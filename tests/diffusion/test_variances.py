"""The variances of a step: fixed, learned and optimal, on Gaussian data whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.diffusion import (
    gaussian,
    likelihood,
    losses,
    losses_bound,
    parameterizations,
    processes,
    schedules,
    timesteps,
    variances,
)

pytestmark = pytest.mark.slow

T = 40
BETAS = schedules.cosine_betas(T)
SCHEDULE = schedules.from_betas(BETAS)
PROCESS = processes.gaussian(SCHEDULE)
NARROWEST = float(gaussian.refreshed(SCHEDULE, 2 / T, 1 / T) * SCHEDULE.sigma(1 / T) ** 2)
INDEX = parameterizations.table_index(T)
EPS = parameterizations.eps(SCHEDULE, INDEX)
LEARNED = parameterizations.learned_range(EPS, SCHEDULE, NARROWEST)
VAR = 0.09  # of the data


def kernel_variance(t, s, v):
    """The learned variance of a step, [N], for the network's raw v."""
    output = jnp.concatenate([jnp.zeros((1, 1)), jnp.full((1, 1), v)], axis=-1)
    one = [
        PROCESS.bridge(a, b)(LEARNED.read(output, jnp.zeros((1, 1)), a), jnp.zeros((1, 1)))
        for a, b in zip(t, s, strict=True)
    ]
    return np.array([kernel.var[0, 0] for kernel in one])


def test_the_learned_variance_lies_between_the_papers_two(x64):
    """Improved DDPM's formulas from the betas alone, on the whole table and on a respaced one."""
    for times in (timesteps.uniform(T, T), timesteps.respaced(10, T)):
        t, s = times[:-1], times[1:]
        alpha_bar = np.cumprod(1 - BETAS)
        at = alpha_bar[np.rint(t * T).astype(int) - 1]
        before = np.append(at[1:], 1.0)
        beta = 1 - at / before
        posterior = beta * (1 - before) / (1 - at)
        posterior[-1] = NARROWEST
        np.testing.assert_allclose(NARROWEST, BETAS[1] * BETAS[0] / (1 - alpha_bar[1]), rtol=1e-12)
        for v in (-1.0, 0.3, 1.0):
            share = (v + 1) / 2
            want = np.exp(share * np.log(beta) + (1 - share) * np.log(np.maximum(posterior, NARROWEST)))
            np.testing.assert_allclose(kernel_variance(t, s, v), want, rtol=1e-9)


def exact(x, t):
    """p(x0 | x_t) of data N(0, VAR)."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    total = alpha**2 * VAR + sigma**2
    return Gaussian(alpha * VAR / total * x, VAR * sigma**2 / total)


def exact_power(t):
    """E eps_hat^2 of the exact denoiser: sigma^2 / (alpha^2 VAR + sigma^2)."""
    return SCHEDULE.sigma(t) ** 2 / (SCHEDULE.alpha(t) ** 2 * VAR + SCHEDULE.sigma(t) ** 2)


def test_the_analytic_variance_is_the_data_s(x64):
    times = timesteps.uniform(8, T)
    transform = variances.analytic(SCHEDULE, times, exact_power(times[:-1]))
    x = jnp.zeros((3, 2))
    for t in times[:-1]:
        estimate = transform(lambda x, t: Gaussian(x))(x, jnp.asarray(t))
        np.testing.assert_allclose(jnp.broadcast_to(estimate.var, x.shape), exact(x, t).var, rtol=1e-8)


def test_the_power_of_a_network_is_measured_at_every_time():
    """Seed 0, 512 x 64 entries: within 5.5 standard errors of a mean of squares, a false alarm in 10^6 in 8 times."""
    times = timesteps.uniform(8, T)
    x0 = VAR**0.5 * jax.random.normal(jax.random.key(0), (512, 64))
    keys = jax.random.split(jax.random.key(1), 512)

    def measured(denoise):
        return jax.jit(lambda: variances.eps_power(denoise, SCHEDULE, PROCESS, times, x0, keys))()

    want = exact_power(times[:-1])
    tolerance = 5.5 * (2 / x0.size) ** 0.5
    np.testing.assert_allclose(measured(exact), want, rtol=tolerance)
    # Control: a denoiser that knows nothing of the data.
    assert np.abs(measured(lambda x, t: Gaussian(0 * x)) / want - 1).max() > 2 * tolerance


def quadrature(t):
    """x0 and noise of Gauss-Hermite nodes, [9, 1] each, and weights: exact for what is quadratic in them."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    a, b = (m.reshape(-1, 1) for m in np.meshgrid(nodes, nodes))
    weight = np.outer(weights, weights).reshape(-1) / weights.sum() ** 2
    x0 = VAR**0.5 * a
    return jnp.asarray(x0), jnp.asarray(b), gaussian.q_sample(SCHEDULE, x0, t, b), jnp.asarray(weight)


@pytest.mark.parametrize("step", [3, 20, 38])
def test_the_bound_teaches_the_optimal_variance(x64, step):
    """The v that minimises it, for the exact mean: the kernel's variance is that of x_s given x_t."""
    t, s = step / T, (step - 1) / T
    x0, noise, x_t, weight = quadrature(t)
    eps = gaussian.eps_from_x0(SCHEDULE, x_t, exact(x_t, t).mean, t)
    criterion = losses_bound.bound(LEARNED, PROCESS, T)

    def cost(v):
        output = jnp.concatenate([eps, jnp.full_like(eps, v)], axis=-1)
        return jnp.sum(weight * criterion(output, x0, noise, x_t, jnp.full(len(x0), t)))

    # The best variance is known: what of x_s is open given x_t. Where is that v?
    best = PROCESS.bridge(t, s)(exact(x_t, t), x_t).var[0, 0]
    low, high = kernel_variance([t], [s], -1.0)[0], kernel_variance([t], [s], 1.0)[0]
    v = 2 * np.log(best / low) / np.log(high / low) - 1
    assert -1 < v < 1
    np.testing.assert_allclose(jax.grad(cost)(v), 0, atol=1e-9)
    assert cost(v) < min(cost(v - 0.1), cost(v + 0.1))


def test_the_bound_is_made_of_the_published_terms(x64):
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 5)) / 127.5 - 1)
    noise, output = jax.random.normal(jax.random.key(0), (4, 5)), jax.random.normal(jax.random.key(1), (4, 10))
    steps = np.array([1, 2, 17, T])
    t = jnp.asarray(steps / T)
    x_t = gaussian.q_sample(SCHEDULE, x0, t, noise)
    got = losses_bound.bound(LEARNED, PROCESS, T)(output, x0, noise, x_t, t)
    for i, step in enumerate(steps):
        one = slice(i, i + 1)
        now, before = step / T, (step - 1) / T
        kernel = PROCESS.bridge(now, before)(LEARNED.read(output[one], x_t[one], now), x_t[one])
        if step == 1:
            term = likelihood.decoder_term(kernel, x0[one])
        else:
            term = likelihood.transition_term(SCHEDULE, x0[one], x_t[one], kernel, now, before)
        np.testing.assert_allclose(got[i], T * likelihood.bits(term).mean(), rtol=1e-7)


def test_the_hybrid_teaches_the_mean_by_l_simple_alone(x64):
    x0, noise = jax.random.normal(jax.random.key(0), (2, 4, 5)).clip(-1, 1)
    output = 0.3 * jax.random.normal(jax.random.key(1), (4, 10))
    t = jnp.array([1, 2, 17, T]) / T
    arguments = x0, noise, gaussian.q_sample(SCHEDULE, x0, t, noise), t
    hybrid = losses_bound.hybrid(EPS, LEARNED, PROCESS, T, weight=0.01)
    simple, bound = losses.squared_error(EPS), losses_bound.bound(LEARNED, PROCESS, T)

    def slope(criterion, output):
        return jax.grad(lambda output: criterion(output, *arguments).sum())(output)

    got = slope(hybrid, output)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[:, :5], slope(simple, output[:, :5]), rtol=1e-5)
    np.testing.assert_allclose(got[:, 5:], 0.01 * slope(bound, output)[:, 5:], rtol=1e-5)
    assert np.abs(slope(bound, output)[:, :5]).max() > 0.1  # control: the bound alone would move the mean
