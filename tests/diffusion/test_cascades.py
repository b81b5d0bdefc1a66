"""Cascades, where both stages are known in closed form: images of 4x4 Gaussian pixels, and their means of 2x2.

A wrong first stage draws N(D m + d, V) in place of N(D m, D C D^T). At the level s, with a = alpha(s), b = sigma(s),
S = a^2 D C D^T + b^2 I and K = a C D^T S^-1, an exact second stage gives mean m + a K d and covariance
C + a^2 K (V - D C D^T) K^T: what the first gets wrong is damped, and nothing where it is right.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.core import resizing, rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import cascades, losses, parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.losses import Context

SCHEDULE = schedules.from_betas(schedules.cosine_betas())
PLACE = np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij"), -1).reshape(16, 2)
COVARIANCE = np.exp(-np.sum((PLACE[:, None] - PLACE) ** 2, -1) / 4.5) + 0.05 * np.eye(16)
MEAN = 0.3 * (PLACE[:, 0] - 1.5)
SHRINK = np.kron(np.kron(np.eye(2), [[0.5, 0.5]]), np.kron(np.eye(2), [[0.5, 0.5]]))  # D, [4, 16]
LOW = SHRINK @ COVARIANCE @ SHRINK.T
OFF, WRONG = 0.5, 1.5 * LOW  # d and V
LEVELS = np.array([0.0, 0.3, 0.7, 1.0])
MADE, TOLD = 0.5, 0.1  # the control
CHAINS, STEPS, FALSE_ALARM = 4000, 50, 1e-6


class Gaussian(NamedTuple):
    """A law of images, its covariance as vectors and values; a network's parameters, and its denoiser in them."""

    mean: jax.Array
    vectors: jax.Array
    values: jax.Array


def gaussian(mean, covariance):
    values, vectors = np.linalg.eigh(covariance)
    return Gaussian(mean, vectors, np.maximum(values, 0))


def denoised(law, x, time):
    """E[x0 | x_t]."""
    t = time[0] / 1000
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    gain = alpha * law.values / (alpha**2 * law.values + sigma**2)
    flat = x.reshape(len(x), -1)
    away = (flat - alpha * law.mean) @ law.vectors
    return (law.mean + (gain * away) @ law.vectors.T).reshape(x.shape)


def told(params, x, time, cond):
    """E[x0 | x_t, z]: of the second stage, which is told z; its level is in the parameters."""
    law, gain, scale = params
    mean = law.mean + (cond["low_res"].reshape(len(x), -1) - scale * (SHRINK @ law.mean)) @ gain.T
    return denoised(law._replace(mean=mean), x, time)


def gain_at(level):
    alpha, sigma = SCHEDULE.alpha(level), SCHEDULE.sigma(level)
    total = alpha**2 * LOW + sigma**2 * np.eye(4)
    gain = alpha * COVARIANCE @ SHRINK.T @ np.linalg.inv(total)
    return gain, COVARIANCE - gain @ total @ gain.T


def law_of(made, told, mean=OFF, covariance=WRONG):
    """What a second stage draws of z made at one level, where it is told another."""
    a, b, other = SCHEDULE.alpha(made), SCHEDULE.sigma(made), SCHEDULE.alpha(told)
    gain, left = gain_at(told)
    shift = (a - other) * (SHRINK @ MEAN) + a * mean
    return MEAN + gain @ shift, left + gain @ (a**2 * covariance + b**2 * np.eye(4)) @ gain.T


def second(level):
    gain, left = gain_at(level)
    return gaussian(MEAN, left), gain, SCHEDULE.alpha(level)


def sampler(apply, times, shape):
    process, solver = processes.gaussian(SCHEDULE), samplers.dpmpp_2m(SCHEDULE)
    time = parameterizations.thousandths
    return samplers.make_sample_fn(apply, parameterizations.x0(time), process, solver, times, CHAINS, shape)


def fits(samples, mean, covariance):
    """Whether samples may be of that normal law, by its mean and by its covariance; also their distances from it.

    N |L^-1 (mean)|^2 is chi-squared, and so, about, is N / 2 of the whitened covariance's error. A law that is a
    point in some direction is left out there.
    """
    count, size = samples.shape
    white = np.linalg.solve(np.linalg.cholesky(covariance), (samples - mean).T)
    of_mean = count * np.sum(white.mean(axis=1) ** 2)
    of_covariance = count / 2 * np.sum((np.cov(white) - np.eye(size)) ** 2)
    return (
        of_mean < stats.chi2.isf(FALSE_ALARM, size)
        and of_covariance < stats.chi2.isf(FALSE_ALARM, size * (size + 1) / 2),
        of_mean,
        of_covariance,
    )


@pytest.fixture(scope="module")
def drawn():
    """Cascades at all levels, and the control: level -> second stage's samples [4000, 16], of both kinds.

    4000 chains each, of DPM-Solver++(2M) in 50 steps; seed 0. The bound of each comparison has a false alarm in a
    million.
    """
    first = gaussian(SHRINK @ MEAN + OFF, WRONG)
    times = timesteps.uniform(STEPS, 1000)
    low = sampler(denoised, times, (2, 2, 1))
    draw = jax.vmap(sampler(told, times, (4, 4, 1)))
    augment = cascades.telling(cascades.noised(SCHEDULE))
    key = rng.root(0)

    @jax.jit
    def run(params):
        keys = rng.per_example(key, jnp.arange(CHAINS))
        small = low(first, rng.stream(key, "first"))
        made = jnp.append(LEVELS, MADE)
        cond = jax.vmap(lambda level: augment(keys, {"low_res": small}, jnp.full(CHAINS, level)))(made)
        stopped = sampler(denoised, cascades.until(times, 0.3), (2, 2, 1))(first, rng.stream(key, "stopped"))
        stopped = {"low_res": stopped, "noise_level": jnp.full(CHAINS, 0.3)}
        cond = jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), cond, stopped)
        return draw(params, rng.per_example(rng.stream(key, "second"), jnp.arange(len(made) + 1)), cond)

    params = [second(level) for level in (*LEVELS, TOLD, 0.3)]
    finished = np.asarray(run(jax.tree.map(lambda *parts: jnp.stack(list(map(jnp.asarray, parts))), *params)))
    finished = finished.reshape(len(LEVELS) + 2, CHAINS, 16).astype(float)
    return dict(zip([*LEVELS, "wrong level", "truncated"], finished, strict=True))


def test_figures_of_the_closed_form():
    """Those of an independent computation: how much of d is left at s = 0.3, and what is added to the covariance."""
    mean, covariance = law_of(0.3, 0.3)
    np.testing.assert_allclose(SHRINK @ (mean - MEAN) / OFF, 0.8697, atol=1e-4)
    np.testing.assert_allclose(np.trace(covariance - COVARIANCE), 4.3418, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(covariance - COVARIANCE), 2.99, atol=5e-3)
    _, covariance = law_of(MADE, TOLD, 0.0, LOW)
    np.testing.assert_allclose(np.linalg.norm(covariance - COVARIANCE), 2.43, atol=5e-3)
    for level in (0.0, 0.2, 0.9, 1.0):  # a right first stage is right at every level
        mean, covariance = law_of(level, level, 0.0, LOW)
        np.testing.assert_allclose(mean, MEAN, atol=1e-12)
        np.testing.assert_allclose(covariance, COVARIANCE, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_a_cascade_has_its_closed_law_at_every_level(drawn, level):
    good, *how = fits(drawn[level], *law_of(level, level))
    assert good, how
    assert fits(drawn[level], MEAN, COVARIANCE)[0] == (level == 1.0)  # the first stage is forgotten there, only


def test_a_chain_that_is_stopped_gives_the_same_law(drawn):
    good, *how = fits(drawn["truncated"], *law_of(0.3, 0.3))
    assert good, how


def test_a_second_stage_that_is_told_another_level_has_another_law(drawn):
    good, *how = fits(drawn["wrong level"], *law_of(MADE, TOLD))
    assert good, how
    for level in (MADE, TOLD):
        assert not fits(drawn["wrong level"], *law_of(level, level))[0]


def test_where_a_chain_may_be_stopped():
    np.testing.assert_array_equal(cascades.until([1.0, 0.6, 0.3, 0.0], 0.5), [1.0, 0.6, 0.5])
    np.testing.assert_array_equal(cascades.until([1.0, 0.6, 0.3, 0.0], 0.3), [1.0, 0.6, 0.3])
    np.testing.assert_array_equal(cascades.until([1.0, 0.6, 0.3, 0.0], 0.0), [1.0, 0.6, 0.3, 0.0])
    for level in (1.0, -0.1):
        with pytest.raises(InputError, match="cannot be stopped at"):
            cascades.until([1.0, 0.5, 0.0], level)


def test_blur_is_a_convolution_with_a_gaussian():
    x = np.random.default_rng(0).normal(size=(3, 5, 6, 2)).astype(np.float32)
    sigma = np.array([0.0, 0.6, 50.0], np.float32)
    blurred = np.asarray(cascades.blur(jnp.asarray(x), jnp.asarray(sigma)))
    np.testing.assert_array_equal(blurred[0], x[0])
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], "edge").astype(float)
    for i in (1, 2):
        weight = np.exp(-(np.arange(-1, 2)[:, None] ** 2 + np.arange(-1, 2) ** 2) / (2 * float(sigma[i]) ** 2))
        weight /= weight.sum()
        expected = sum(weight[j, k] * padded[i, j : j + 5, k : k + 6] for j in range(3) for k in range(3))
        np.testing.assert_allclose(blurred[i], expected, atol=1e-6)
    with pytest.raises(InputError, match="no middle"):
        cascades.blur(jnp.asarray(x), jnp.asarray(sigma), 2)


def test_a_share_of_examples_is_blurred_by_deviations_of_a_range():
    """Of an image of one bright pixel the middle of the blurred one says its deviation. 2000 examples, seed 1: the
    share lies within 0.5 +- 0.055 in all but one of a million such tests."""
    count = 2000
    x = jnp.zeros((count, 3, 3, 1)).at[:, 1, 1].set(1.0)
    made = cascades.silently(cascades.blurred(0.4, 0.6))(
        rng.per_example(rng.root(1), jnp.arange(count)), {"low_res": x}, jnp.zeros(count)
    )
    middle = np.asarray(made["low_res"][:, 1, 1, 0])
    changed = middle[middle != 1]
    assert abs(len(changed) / count - 0.5) < 0.055
    least, most = (float((1 + 2 * np.exp(-1 / (2 * sigma**2))) ** -2) for sigma in (0.6, 0.4))
    assert least - 1e-6 <= changed.min() < changed.max() <= most + 1e-6
    assert changed.max() - changed.min() > 0.95 * (most - least)
    for wrong in [(0.6, 0.4), (0.4, 0.6, 1.5), (-0.1, 0.2)]:
        with pytest.raises(InputError, match="blur needs"):
            cascades.blurred(*wrong)


def test_a_loss_of_augmented_examples():
    """Levels are uniform, told as they are used, and another draw than the noise; the rest of the condition stays."""
    count = 500
    low = jnp.ones((count, 4, 4, 1))

    def seen(keys, params, x0, context, cond):
        return cond["noise_level"], cond

    schedule = schedules.cosine()
    loss = losses.augmented(seen, cascades.telling(cascades.noised(schedule)), lambda u: u)
    keys = rng.per_example(rng.root(2), jnp.arange(count))
    cond = {"low_res": low, "noise_level": jnp.zeros(count), "label": jnp.arange(count)}
    level, heard = loss(keys, {}, None, Context(jnp.ones(count)), cond)
    assert stats.kstest(np.asarray(level), "uniform").pvalue > 1e-6
    alpha, sigma = expand(schedule.alpha(level), low), expand(schedule.sigma(level), low)
    noise = (heard["low_res"] - alpha * low) / sigma
    assert stats.kstest(np.ravel(noise), "norm").pvalue > 1e-6
    assert abs(np.corrcoef(level, np.asarray(noise).mean((1, 2, 3)))[0, 1]) < 5 / count**0.5
    np.testing.assert_array_equal(heard["label"], cond["label"])


def test_means_shrink_as_the_cascade_above_does():
    x = np.random.default_rng(3).normal(size=(2, 4, 4, 1)).astype(np.float32)
    expected = (x.reshape(2, 16) @ SHRINK.T).reshape(2, 2, 2, 1)
    np.testing.assert_allclose(resizing.means(jnp.asarray(x), (2, 2)), expected, atol=1e-6)
