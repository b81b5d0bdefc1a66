"""The probability of levels from a density: bounds of what the density's integral over each bin says exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import likelihood, schedules
from diffusion_jax.diffusion.likelihood import (
    by_level,
    by_level_init,
    dequantized,
    flow_times,
    logit_normal_dequantizer,
    ode_likelihood,
)

LEVELS = 4
WIDTH = 2 / (LEVELS - 1)
# A density that is narrow within each bin, and not in its middle.
WEIGHTS, STD = np.array([0.1, 0.4, 0.3, 0.2]), np.array([0.05, 0.1, 0.08, 0.12])
CENTRES = np.arange(LEVELS) * WIDTH - 1 + np.array([0.1, -0.15, 0.0, 0.2])


def log_density(keys, x):
    each = jnp.log(WEIGHTS) + norm.logpdf(x[..., None], CENTRES, STD)
    return jax.nn.logsumexp(each, axis=-1).reshape(len(x), -1).sum(1)


def log_probability():
    """log2 P(k) of each level, exactly."""
    edges = (np.arange(LEVELS + 1) - 0.5) * WIDTH - 1
    below = norm.cdf(edges[:, None], CENTRES, STD) @ WEIGHTS
    return np.log2(np.diff(below))


def test_the_uniform_law_of_all_levels_costs_8_bits():
    """Density 1 / (256 w) between the outermost edges: exactly log2 256 bits an entry, from any draw."""
    level = -np.log(256 * 2 / 255)
    bits_fn = dequantized(lambda keys, x: jnp.full(len(x), 12 * level), likelihood.uniform_dequantizer)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 2, 6)).astype(np.uint8)
    bound = jax.jit(bits_fn)(jax.random.split(jax.random.key(0), 5), pictures)
    np.testing.assert_allclose(bound.total, 8, rtol=1e-6)
    assert bound.log_prob.shape == bound.log_q.shape == (5,)


def test_uniform_points_stay_in_their_bins():
    bits_fn = jax.jit(dequantized(lambda keys, x: x[:, 0], likelihood.uniform_dequantizer))
    pictures = np.arange(256, dtype=np.uint8).repeat(50)[:, None]
    x = np.asarray(bits_fn(jax.random.split(jax.random.key(0), len(pictures)), pictures).log_prob, np.float64)
    place = ((x[:, None] + 1) * 127.5 - pictures).reshape(256, 50)
    assert np.abs(place).max() < 0.5 + 1e-4
    assert np.ptp(place, axis=1).min() > 0.8


def test_a_learned_dequantiser_tightens_the_bound():
    """256 images of 8 pixels of 4 levels: from 4 bits above the exact code length to 0.1, what the family leaves."""
    exact = -log_probability()
    images = jnp.asarray(np.random.default_rng(0).integers(0, LEVELS, (256, 8)))
    want = float(exact[images].mean())

    @jax.jit
    def costs(params, key):
        keys = jax.random.split(key, len(images))
        return dequantized(log_density, logit_normal_dequantizer(by_level(params)), LEVELS)(keys, images).total.mean()

    plain_fn = jax.jit(dequantized(log_density, likelihood.uniform_dequantizer, LEVELS))
    plain = plain_fn(jax.random.split(jax.random.key(1), 256), images)
    assert plain.total.mean() > want + 1

    @jax.jit
    def train(params):
        def step(state, number):
            params, speed = state
            slope = jax.grad(costs)(params, jax.random.fold_in(jax.random.key(2), number))
            speed = jax.tree.map(lambda v, g: 0.9 * v + g, speed, slope)
            return (jax.tree.map(lambda p, v: p - 0.1 * v, params, speed), speed), None

        return jax.lax.scan(step, (params, jax.tree.map(jnp.zeros_like, params)), jnp.arange(300))[0][0]

    start = by_level_init(LEVELS)
    learned = train(start)
    before, after = (float(costs(params, jax.random.key(3))) for params in (start, learned))
    assert before > want + 1
    assert want < after < want + 0.1, (want, before, after)


def test_log_q_is_the_density_of_u(x64):
    images = jnp.asarray(np.random.default_rng(0).integers(0, LEVELS, (6, 3)))
    params = {"mean": jnp.array([0.5, -1.0, 2.0, 0.0]), "log_std": jnp.array([-1.0, 0.3, 0.0, -0.5])}
    u, log_q = jax.jit(logit_normal_dequantizer(by_level(params)))(jax.random.split(jax.random.key(0), 6), images)
    assert ((u > 0) & (u < 1)).all()
    logit = jnp.log(u / (1 - u))
    law = norm.logpdf(logit, params["mean"][images], jnp.exp(params["log_std"])[images]) - jnp.log(u * (1 - u))
    np.testing.assert_allclose(log_q, law.sum(1), rtol=1e-9)
    assert len(np.unique(u)) == 18


def test_the_start_is_close_to_uniform(x64):
    """KL(q || uniform) = E log q, by quadrature: 0.014 bits, and no other spread is nearer."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)

    def above(log_std):
        logit = np.exp(log_std) * nodes
        log_q = norm.logpdf(nodes) - log_std + np.logaddexp(0, logit) + np.logaddexp(0, -logit)
        return float(weights @ log_q / weights.sum() / np.log(2))

    start = float(by_level_init()["log_std"][0])
    assert 0.0135 < above(start) < 0.0145
    assert above(start) < min(above(start - 0.1), above(start + 0.1))


def test_bits_of_images_by_the_flow():
    """Dequantised Gaussian data of 256 levels: within 0.005 bits an entry of the exact probability of its levels."""
    schedule, std = schedules.cosine(), 0.5
    times = flow_times(schedule, 64, level=1e-3)

    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Gaussian(alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x)

    def density(keys, x):
        return ode_likelihood(denoise, schedule, times, x, keys).log_prob

    rng = np.random.default_rng(0)
    pictures = np.clip(np.rint((rng.normal(0, std, (16, 20)) + 1) * 127.5), 3, 252).astype(np.uint8)
    bits_fn = jax.jit(dequantized(density, likelihood.uniform_dequantizer))
    bound = bits_fn(jax.random.split(jax.random.key(0), 16), pictures)
    edges = (np.arange(257) - 0.5) / 127.5 - 1
    want = -np.log2(np.diff(norm.cdf(edges, 0, std)))[pictures].mean(1)
    np.testing.assert_allclose(bound.total, want, atol=0.005)


def test_bad_input_is_named():
    keys = jax.random.split(jax.random.key(0), 2)
    bits_fn = dequantized(log_density, likelihood.uniform_dequantizer, LEVELS)
    with pytest.raises(InputError, match="float32"):
        bits_fn(keys, np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="from 0 to 3, not from 0 to 4"):
        bits_fn(keys, np.array([[0, 4], [1, 1]]))
    with pytest.raises(InputError, match="one key an example"):
        bits_fn(keys, np.zeros((3, 2), np.uint8))
    with pytest.raises(InputError, match="at least 2 levels"):
        dequantized(log_density, likelihood.uniform_dequantizer, 1)
