"""Stochastic samplers: step for step their papers' algorithms with exported noise, and the law that results."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.samplers import dpm, edm
from diffusion_jax.diffusion.samplers.dpm import dpmpp_2m, dpmpp_2m_sde
from diffusion_jax.diffusion.samplers.langevin import annealed_langevin
from diffusion_jax.diffusion.samplers.ode import euler, heun
from diffusion_jax.diffusion.samplers.sde import euler_maruyama, predictor_corrector
from tests.diffusion.samplers.mixture import CENTRES, WEIGHTS, WIDTH, two_modes

pytestmark = pytest.mark.slow

SHAPE = (3, 5)
KEYS = jax.random.split(jax.random.key(0), 3)
T = 100
TABLE = schedules.linear_betas(T, 1e-3, 0.1)
MEAN, VAR = 0.3, 0.25


def start():
    return np.random.default_rng(0).normal(size=SHAPE)


def normal(keys):
    return np.array(jax.vmap(lambda key: jax.random.normal(key, SHAPE[1:]))(keys))


def nonlinear(x, t):
    return Gaussian(jnp.tanh(1.3 * x - t))


def walk(sampler, times, denoise, x, keys=KEYS):
    return np.asarray(jax.jit(lambda x: samplers.solve(sampler, times, denoise, x, keys))(jnp.asarray(x)))


def test_churn_is_algorithm_2(x64):
    """Karras et al. 2022, line by line, with our noise, where levels are time itself."""
    schedule, times = schedules.edm(1.0), np.array([0.7, 0.5, 0.3, 0.1, 0.02, 0.0])
    s_churn, s_tmin, s_tmax, s_noise = 1.5, 0.05, 0.5, 1.1
    x = start()
    for n, (t, s) in enumerate(itertools.pairwise(times)):
        gamma = min(s_churn / 5, 2**0.5 - 1) if s_tmin <= t <= s_tmax else 0.0
        t_hat = t + gamma * t
        x_hat = x + np.sqrt(t_hat**2 - t**2) * s_noise * normal(rng.each(KEYS, n + 1))
        d = (x_hat - np.tanh(1.3 * x_hat - t_hat)) / t_hat
        x = x_hat + (s - t_hat) * d
        if s != 0:
            d_next = (x - np.tanh(1.3 * x - s)) / s
            x = x_hat + (s - t_hat) * (d + d_next) / 2
    ours = walk(edm(schedule, s_churn, s_tmin, s_tmax, s_noise), times, nonlinear, start())
    np.testing.assert_allclose(ours, x, rtol=1e-10, atol=1e-12)
    plain = walk(heun(schedule), times, nonlinear, start())
    np.testing.assert_allclose(walk(edm(schedule), times, nonlinear, start()), plain, rtol=1e-12)
    with pytest.raises(InputError, match="no more than the images"):
        walk(samplers.churned(schedule, dpmpp_2m(schedule), 1.0), times, nonlinear, start())
    assert np.abs(plain - x).max() > 1e-2  # control


@pytest.mark.parametrize("twice", [False, True], ids=["euler", "dpm_2"])
def test_churned_solvers_are_k_diffusion_s(x64, twice):
    """sample_euler and sample_dpm_2, line by line, with our noise, where levels are time itself."""
    schedule, times = schedules.edm(1.0), np.array([0.7, 0.5, 0.3, 0.1, 0.0])
    x = start()
    for n, (t, s) in enumerate(itertools.pairwise(times)):
        gamma = min(0.8 / 4, 2**0.5 - 1) if t >= 0.2 else 0.0
        high = t * (gamma + 1)
        x = x + normal(rng.each(KEYS, n + 1)) * 1.1 * (high**2 - t**2) ** 0.5
        d = (x - np.tanh(1.3 * x - high)) / high
        if twice and s > 0:
            middle = np.exp((np.log(high) + np.log(s)) / 2)
            half_way = x + d * (middle - high)
            d = (half_way - np.tanh(1.3 * half_way - middle)) / middle
        x = x + d * (s - high)
    solver = samplers.dpm_2(schedule) if twice else euler(schedule)
    ours = walk(samplers.churned(schedule, solver, 0.8, 0.2, s_noise=1.1), times, nonlinear, start())
    np.testing.assert_allclose(ours, x, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("make", [samplers.dpm_2, samplers.dpmpp_2s], ids=["dpm_2", "dpmpp_2s"])
def test_ancestral_solvers_are_k_diffusion_s(x64, make):
    """sample_dpm_2_ancestral and sample_dpmpp_2s_ancestral, line by line, with our noise; eta = 0.7."""
    schedule, times = schedules.edm(1.0), np.array([0.7, 0.5, 0.3, 0.1, 0.0])
    x = start()
    for n, (t, s) in enumerate(itertools.pairwise(times)):
        up = min(s, 0.7 * (s**2 * (t**2 - s**2) / t**2) ** 0.5)
        down = (s**2 - up**2) ** 0.5
        seen = np.tanh(1.3 * x - t)
        if down == 0:
            x = seen
        elif make is samplers.dpm_2:
            middle = np.exp((np.log(t) + np.log(down)) / 2)
            half_way = x + (x - seen) / t * (middle - t)
            x = x + (half_way - np.tanh(1.3 * half_way - middle)) / middle * (down - t)
        else:
            h = np.log(t) - np.log(down)
            middle = t * np.exp(-h / 2)
            half_way = middle / t * x - np.expm1(-h / 2) * seen
            x = down / t * x - np.expm1(-h) * np.tanh(1.3 * half_way - middle)
        x = x + normal(rng.each(KEYS, n + 1)) * up * 1.1
    ours = walk(make(schedule, eta=0.7, s_noise=1.1), times, nonlinear, start())
    np.testing.assert_allclose(ours, x, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("second", [dpm.midpoint, dpm.exact], ids=["midpoint", "heun"])
@pytest.mark.parametrize("memories", [1, 2])
def test_sde_solvers_with_memory_are_k_diffusion_s(x64, second, memories):
    """sample_dpmpp_2m_sde in both forms and sample_dpmpp_3m_sde, line by line, with our noise; eta = 0.6."""
    schedule, times, eta = schedules.edm(1.0), np.array([0.7, 0.5, 0.3, 0.2, 0.1, 0.0]), 0.6
    x, seen, lengths = start(), [], []
    for n, (t, s) in enumerate(itertools.pairwise(times)):
        now = np.tanh(1.3 * x - t)
        if s == 0:
            x = now
            continue
        h = np.log(t) - np.log(s)
        k = h * (1 + eta)
        slope = np.expm1(-k) / k + 1
        x = np.exp(-k) * x - np.expm1(-k) * now
        if memories == 2 and len(seen) > 1:
            r = [length / h for length in lengths[:2]]
            one, two = (now - seen[0]) / r[0], (seen[0] - seen[1]) / r[1]
            change = (one - two) / (r[0] + r[1])
            x = x + slope * (one + r[0] * change) - (slope / k - 0.5) * change
        elif seen:
            lean = (now - seen[0]) * h / lengths[0]
            x = x + (slope if second is dpm.exact or memories == 2 else -0.5 * np.expm1(-k)) * lean
        x = x + 1.1 * s * np.sqrt(-np.expm1(-2 * h * eta)) * normal(rng.each(KEYS, n + 1))
        seen, lengths = [now, *seen], [h, *lengths]
    two, three = dpmpp_2m_sde(schedule, eta, 1.1, second), samplers.dpmpp_3m_sde(schedule, eta, 1.1)
    ours = walk(two if memories == 1 else three, times, nonlinear, start())
    np.testing.assert_allclose(ours, x, rtol=1e-9, atol=1e-11)


def test_dpmpp_sde_without_memory_is_ddpm(x64):
    """Two steps, the second to 0, are of first order: DDPM's posterior twice, with the same noise."""
    schedule, times = schedules.cosine(), np.array([1.0, 0.4, 0.0])
    ddpm = samplers.ancestral(processes.gaussian(schedule))
    ours = walk(dpmpp_2m_sde(schedule), times, nonlinear, start())
    np.testing.assert_allclose(ours, walk(ddpm, times, nonlinear, start()), rtol=1e-12)


@pytest.mark.parametrize("corrected", [False, True], ids=["predictor", "corrected"])
def test_euler_maruyama_and_corrector_are_algorithm_3(x64, corrected):
    """Song et al. 2021, the VP predictor on a table of betas, line by line; the corrector without alpha_i."""
    schedule, times, r = schedules.from_betas(TABLE), timesteps.uniform(T, T), 0.16
    alpha_bar = np.append(1.0, np.cumprod(1 - TABLE))

    def score(x, i):
        return (np.sqrt(alpha_bar[i]) * np.tanh(1.3 * x - i / T) - x) / (1 - alpha_bar[i])

    x = start()
    for n, i in enumerate(range(T, 0, -1)):
        keys = rng.each(KEYS, n + 1)
        predict, correct = rng.split(keys, 2) if corrected else (keys, None)
        beta = TABLE[i - 1]
        x = (2 - np.sqrt(1 - beta)) * x + beta * score(x, i)
        if i > 1:
            x = x + np.sqrt(beta) * normal(predict)
            for j in range(2 if corrected else 0):
                z, g = normal(rng.each(correct, j)), score(x, i - 1)
                e = 2 * (r * np.linalg.norm(z, axis=1) / np.linalg.norm(g, axis=1)) ** 2
                x = x + e[:, None] * g + np.sqrt(2 * e)[:, None] * z
    sampler = euler_maruyama(schedule)
    if corrected:
        sampler = predictor_corrector(schedule, sampler, r, steps=2)
    np.testing.assert_allclose(walk(sampler, times, nonlinear, start()), x, rtol=1e-8, atol=1e-9)


def exact(schedule):
    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Gaussian(MEAN + alpha * VAR / (alpha**2 * VAR + sigma**2) * (x - alpha * MEAN))

    return denoise


LAWS = {
    "euler_maruyama": euler_maruyama,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "edm": lambda schedule: edm(schedule, s_churn=20.0),
    "corrected": lambda schedule: predictor_corrector(schedule, euler_maruyama(schedule), 0.1),
}


@pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)
def test_the_law_is_the_data_s(make):
    """100 steps; seed 0, 400 x 64 draws. Bounds: 4.9 standard errors (a false alarm in 10^6) and 5% for the steps."""
    schedule, num = schedules.vp_linear(), 400 * 64
    keys = jax.random.split(jax.random.key(0), 400)
    x = jax.random.normal(jax.random.key(1), (400, 64))
    times = timesteps.linear(100)
    out = walk(make(schedule), times, exact(schedule), x, keys)
    assert abs(out.mean() - MEAN) < 4.9 * (VAR / num) ** 0.5 + 0.01
    assert abs(out.var() / VAR - 1) < 4.9 * (2 / num) ** 0.5 + 0.05

    # Control: an estimate that is drawn towards the mean fails.
    def drawn(x, t):
        return Gaussian(MEAN + 0.9 * (exact(schedule)(x, t).mean - MEAN))

    wrong = walk(make(schedule), times, drawn, x, keys)
    assert abs(wrong.var() / VAR - 1) > 4.9 * (2 / num) ** 0.5 + 0.05


@pytest.mark.parametrize(
    "make",
    [*LAWS.values(), lambda schedule: samplers.ancestral(processes.gaussian(schedule))],
    ids=[*LAWS, "ancestral"],
)
def test_two_modes_get_their_shares(make):
    """150 steps; seed 0, 100 x 64 draws: share and width within 4.9 standard errors and what the steps cost, 5 %.

    Control: a denoiser for modes of equal weight.
    """
    schedule, num = schedules.vp_linear(), 100 * 64
    keys = jax.random.split(jax.random.key(0), 100)
    x = jax.random.normal(jax.random.key(1), (100, 64))

    def drawn(denoise):
        return walk(make(schedule), timesteps.linear(150), denoise, x, keys)

    out = drawn(two_modes(schedule))
    first = out < CENTRES.mean()
    share_error = 4.9 * np.sqrt(np.prod(WEIGHTS) / num)
    assert abs(first.mean() - WEIGHTS[0]) < share_error + 0.01
    assert abs(out[first].var() / WIDTH**2 - 1) < 4.9 * (2 / first.sum()) ** 0.5 + 0.05
    even = drawn(two_modes(schedule, np.array([0.5, 0.5]))) < CENTRES.mean()
    assert abs(even.mean() - WEIGHTS[0]) > share_error + 0.1


def test_annealed_langevin_is_algorithm_1_and_one_level_is_plain(x64):
    schedule, times, eps = schedules.edm(1.0), np.array([0.9, 0.3, 0.1, 0.0]), 0.002
    x = start()
    for n, t in enumerate(times[:-1]):
        a = eps * t**2 / 0.1**2
        for j in range(4):
            z = normal(rng.each(rng.each(KEYS, n + 1), j))
            x = x + a / 2 * (np.tanh(1.3 * x - t) - x) / t**2 + np.sqrt(a) * z
    ours = walk(annealed_langevin(schedule, 4, eps), times, nonlinear, start())
    np.testing.assert_allclose(ours, x, rtol=1e-10)
    ours = walk(annealed_langevin(schedule, 4, eps, denoised=True), times, nonlinear, start())
    np.testing.assert_allclose(ours, np.tanh(1.3 * x - 0.1), rtol=1e-10)


def test_annealing_finds_how_much_each_mode_weighs():
    """Modes at 5 (.8) and -5 (.2), of variance 1, from a uniform start (Song & Ermon 2019, section 3.2.2).

    Seed 0, 4000 draws: a share's standard error is below .008, a variance's within the larger mode .025 of itself.
    Bounds of 4.9 of them, and .03 for the shares, which lag behind the last level at which the modes touch.
    """
    num, eps, last = 4000, 0.05, 0.5
    schedule = schedules.edm(20.0)

    def denoise(x, t):
        v = schedule.sigma(t) ** 2
        share = jax.nn.sigmoid(jnp.log(0.8 / 0.2) + 10 * x / (1 + v))
        at = [m + (x - m) / (1 + v) for m in (5.0, -5.0)]
        return Gaussian(share * at[0] + (1 - share) * at[1])

    x = jax.random.uniform(jax.random.key(1), (num, 1), minval=-8, maxval=8)
    keys = jax.random.split(jax.random.key(0), num)
    levels = np.append(np.geomspace(20.0, last, 12), 0.0) / 20
    annealed = walk(annealed_langevin(schedule, 100, eps), levels, denoise, x, keys)
    plain = walk(annealed_langevin(schedule, 1200, eps), levels[-2:], denoise, x, keys)
    bound = 4.9 * 0.008 + 0.03
    print((annealed > 0).mean(), (plain > 0).mean(), annealed[annealed > 0].var(), annealed[annealed < 0].var())
    assert abs((annealed > 0).mean() - 0.8) < bound
    assert abs((plain > 0).mean() - 0.5) < bound
    # Within a mode Euler's steps have the variance a / (1 - (1 - c)^2), with c = a / 2 (1 + v^2).
    c = eps / (2 * (1 + last**2))
    upper = annealed[annealed > 0]
    assert abs(upper.var() / (eps / (1 - (1 - c) ** 2)) - 1) < 4.9 * 0.025
    assert abs(upper.mean() - 5) < 4.9 * (1.3 / len(upper)) ** 0.5 + 0.05


def test_mistakes_are_refused():
    schedule = schedules.vp_linear()
    for make in (
        lambda: edm(schedule, s_churn=-1.0),
        lambda: predictor_corrector(schedule, euler(schedule), snr=0.0),
        lambda: predictor_corrector(schedule, euler(schedule), steps=0),
        lambda: predictor_corrector(schedule, dpmpp_2m(schedule)).init(jnp.zeros((1, 1))),
        lambda: annealed_langevin(schedule, steps=0),
        lambda: annealed_langevin(schedule, eps=0.0),
        lambda: euler(schedule).plan(np.array([0.2]), np.array([0.5])),
    ):
        with pytest.raises(InputError):
            make()
