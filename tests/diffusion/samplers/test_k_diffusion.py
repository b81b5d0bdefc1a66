"""k-diffusion's dpmpp_sde, dpm_fast and dpm_adaptive: line by line with our noise, orders, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers, schedules, timesteps
from tests.diffusion.samplers import test_sde
from tests.diffusion.samplers.test_ode import X, exact, flow_map
from tests.diffusion.samplers.test_orders import FIRST, LAST, VP, grid
from tests.diffusion.samplers.test_sde import KEYS, normal, start, walk

pytestmark = pytest.mark.slow

EDM = schedules.edm(1.0)
ETA, S_NOISE = 0.7, 1.1


def seen(x, v):
    return np.tanh(1.3 * x - v)


def for_each(denoise):
    """A denoiser of `t`, of one for each example as well."""
    return lambda x, t: denoise(x, expand(t, x))


nonlinear = for_each(lambda x, t: Gaussian(jnp.tanh(1.3 * x - t)))


def down_and_up(v, to):
    up = min(to, ETA * (to**2 * (v**2 - to**2) / v**2) ** 0.5)
    return (to**2 - up**2) ** 0.5, up


# ---- Line by line, where levels are time itself.


@pytest.mark.parametrize("r", [0.5, 0.3])
def test_dpmpp_sde_is_k_diffusion_s(x64, r):
    times = np.array([0.7, 0.5, 0.3, 0.1, 0.0])
    x = start()
    for n, (v, to) in enumerate(itertools.pairwise(times)):
        now = seen(x, v)
        if to == 0:
            x = now
            continue
        at = np.exp((1 - r) * np.log(v) + r * np.log(to))
        z, fresh = (normal(keys) for keys in rng.split(rng.each(KEYS, n + 1), 2))
        # A Brownian path over [to, v], whose increments are normalised: the first is part of the whole.
        path = (v - at) / (v - to)
        whole = np.sqrt(path) * z + np.sqrt(1 - path) * fresh
        (low, up), (down, noise) = down_and_up(v, at), down_and_up(v, to)
        middle = low / v * x + (1 - low / v) * now + S_NOISE * up * z
        both = (1 - 1 / (2 * r)) * now + 1 / (2 * r) * seen(middle, at)
        x = down / v * x + (1 - down / v) * both + S_NOISE * noise * whole
    ours = walk(samplers.dpmpp_sde(EDM, ETA, S_NOISE, r), times, nonlinear, start())
    np.testing.assert_allclose(ours, x, rtol=1e-9, atol=1e-11)


class Solver:
    """DPM-Solver-1, -2 and -3 (Lu et al. 2022, algorithms 1 and 2) from `x` at the level v down by h in log v."""

    def __init__(self, x, v, h):
        self.x, self.v, self.h, self.first = x, v, h, self.eps(x, v)

    @staticmethod
    def eps(x, v):
        return (x - seen(x, v)) / v

    def level(self, share):
        return self.v * np.exp(-share * self.h)

    def one(self, share=1.0):
        return self.x - self.level(share) * np.expm1(share * self.h) * self.first

    def look(self, share):
        return self.eps(self.one(share), self.level(share))

    def two(self, r):
        change = (self.look(r) - self.first) / (2 * r)
        return self.one() - self.level(1) * np.expm1(self.h) * change

    def three(self):
        def slope(share):
            return self.level(share) * (np.expm1(share * self.h) / (share * self.h) - 1)

        second = self.one(2 / 3) - slope(2 / 3) * 2 * (self.look(1 / 3) - self.first)
        third = self.eps(second, self.level(2 / 3))
        return self.one() - slope(1) * 1.5 * (third - self.first)


@pytest.mark.parametrize("looks", [7, 8, 9])
def test_dpm_fast_is_k_diffusion_s(x64, looks):
    """With noise; the level is never below the last. 9 looks are 3 + 3 + 2 + 1."""
    orders = {7: [3, 3, 1], 8: [3, 3, 2], 9: [3, 3, 2, 1]}[looks]
    levels = np.exp(np.linspace(np.log(0.7), np.log(0.05), len(orders) + 1))
    x = start()
    for n, (order, v, to) in enumerate(zip(orders, levels, levels[1:], strict=False)):
        down = max(down_and_up(v, to)[0], levels[-1])
        solver = Solver(x, v, np.log(v / down))
        x = {1: solver.one, 2: lambda: solver.two(1 / 2), 3: solver.three}[order]()  # noqa: B023
        x = x + S_NOISE * np.sqrt(max(to**2 - down**2, 0.0)) * normal(rng.each(KEYS, n + 1))
    sampler = samplers.dpm_fast(EDM, looks, ETA, S_NOISE)
    ours = walk(sampler, levels, nonlinear, start())
    np.testing.assert_allclose(ours, x, rtol=1e-9, atol=1e-11)
    ended = walk(sampler, np.append(levels, 0.0), nonlinear, start())
    np.testing.assert_allclose(ended, seen(x, levels[-1]), rtol=1e-9, atol=1e-11)


def adaptive(x, keys, order, eta, pid, rtol, atol, first, last):
    """k-diffusion's loop for one example: the image, and how many steps were accepted and refused."""
    low, h, errors, counts, v = x, 0.05, None, [0, 0], first
    p, i, d = pid
    power = 1.5 if eta else order
    while v > last * (1 + 1e-5):
        to = max(last, v * np.exp(-h))
        down = max(down_and_up(v, to)[0], last) if eta else to
        solver = Solver(x, v, np.log(v / down))
        lower, higher = (solver.one(), solver.two(1 / 2)) if order == 2 else (solver.two(1 / 3), solver.three())
        allowed = np.maximum(atol, rtol * np.maximum(abs(lower), abs(low)))
        good = 1 / (np.sqrt(np.mean(((lower - higher) / allowed) ** 2)) + 1e-8)
        errors = errors or [good, good]
        powers = (p + i + d) / power, -(p + 2 * d) / power, d / power
        factor = 1 + np.arctan(good ** powers[0] * errors[0] ** powers[1] * errors[1] ** powers[2] - 1)
        taken = factor >= 0.81
        if taken:
            z = normal(rng.each(keys, sum(counts)))
            x, low = higher + (S_NOISE * np.sqrt(max(to**2 - down**2, 0.0)) * z if eta else 0.0), lower
            v, errors = to, [good, errors[0]]
        counts[not taken] += 1
        h *= factor
    return x, counts


@pytest.mark.parametrize(
    ("order", "eta", "pid"), [(2, ETA, (0.0, 1.0, 0.0)), (3, 0.0, (0.2, 0.7, 0.1)), (3, ETA, (0.0, 1.0, 0.0))]
)
def test_dpm_adaptive_is_k_diffusion_s(x64, order, eta, pid):
    """Each example has steps of its own; with noise some of them are tried again."""
    rtol, atol, ends = 0.01, 0.002, np.array([0.7, 0.05])
    keys, counts = rng.each(KEYS, 1), []
    sampler = samplers.dpm_adaptive(EDM, order, rtol, atol, pid=samplers.PID(*pid), eta=eta, s_noise=S_NOISE)
    ours = walk(sampler, ends, nonlinear, start())
    for n in range(len(KEYS)):
        wanted, count = adaptive(start()[n : n + 1], keys[n : n + 1], order, eta, pid, rtol, atol, *ends)
        counts.append(count)
        np.testing.assert_allclose(ours[n], wanted[0], rtol=1e-6, atol=1e-8)
    print(counts)
    assert len({tuple(count) for count in counts}) > 1 or order == 3  # a batch whose examples differ
    assert sum(refused for _, refused in counts) > 0 or not (order == 2 and eta)


# ---- Orders and laws.


def test_orders(x64):
    """DPM-Solver-fast is of third order where its last step is at least of second, and of second otherwise."""
    truth = flow_map(VP, X, FIRST, LAST)

    def error(sampler, steps):
        return np.abs(walk(sampler, grid(steps), for_each(exact(VP)), X, KEYS[: len(X)]) - truth).max()

    def order(make):
        return np.log2(error(make(24), 24) / error(make(48), 48))

    assert abs(order(lambda steps: samplers.dpm_fast(VP, 3 * steps - 1)) - 3) < 0.3
    assert abs(order(lambda steps: samplers.dpm_fast(VP, 3 * steps - 3)) - 2) < 0.4
    assert abs(order(lambda steps: samplers.dpmpp_sde(VP, eta=0.0)) - 2) < 0.3
    for number in (2, 3):
        errors = [error(samplers.dpm_adaptive(VP, number, rtol, rtol), 1) for rtol in (1e-3, 1e-5)]
        print(errors)
        assert errors[1] < 5e-5 < 5e-4 < errors[0] < 5e-3


def test_noise_keeps_the_law():
    """eta = 1, 40 steps; seed 0, 400 x 64 draws, bounds as in test_sde. Control: half of the noise."""
    keys, num = jax.random.split(jax.random.key(0), 400), 400 * 64
    x, bound = jax.random.normal(jax.random.key(1), (400, 64)), 4.9 * (2 / num) ** 0.5 + 0.05

    def variance(sampler, times):
        out = test_sde.walk(sampler, times, for_each(test_sde.exact(VP)), x, keys)
        assert abs(out.mean() - test_sde.MEAN) < 4.9 * (test_sde.VAR / num) ** 0.5 + 0.01
        return abs(out.var() / test_sde.VAR - 1)

    times = timesteps.log_snr(VP, 41)
    assert variance(samplers.dpmpp_sde(VP), times) < bound
    assert variance(samplers.dpmpp_sde(VP, s_noise=0.5), times) > bound
    assert variance(samplers.dpm_fast(VP, 119, eta=1.0), times) < bound
    assert variance(samplers.dpm_adaptive(VP, rtol=0.02, eta=1.0), times[[0, -2, -1]]) < bound


# ---- The seam.


def test_an_adaptive_image_does_not_depend_on_its_batch(x64):
    sampler, times = samplers.dpm_adaptive(EDM, rtol=0.01), np.array([0.7, 0.2, 0.05, 0.0])
    several = walk(sampler, times, nonlinear, start())
    alone = walk(sampler, times, nonlinear, start()[1:2], KEYS[1:2])
    np.testing.assert_allclose(alone[0], several[1], rtol=1e-12)


def test_a_chain_that_does_not_arrive_is_known_by_name():
    """An estimate that jumps: no step is short enough. One that is not finite is not the sampler's fault."""
    times, x = np.array([0.7, 0.2, 0.05, 0.0]), jnp.asarray(start(), jnp.float32)

    def found(denoise):
        sampler = samplers.dpm_adaptive(EDM, rtol=1e-6, atol=1e-6, tries=30)
        drawn = samplers.solve(sampler, times, denoise, x, KEYS)
        return np.isfinite(drawn).all(axis=1), samplers.breaking(sampler, times, denoise, x, KEYS)

    def jumps(x, t):
        return Gaussian(jnp.where(jnp.sin(1e4 * x) > 0, 1.0, -1.0))

    finite, where = found(jumps)
    assert not finite.any()
    assert where.stuck.all()
    assert (where.step == 1).all()
    finite, where = found(lambda x, t: Gaussian(jnp.where(jnp.ndim(t) == 0, x, jnp.nan)))
    assert not finite.any()
    assert not where.stuck.any()


def test_what_is_refused():
    table, times = schedules.from_betas(schedules.linear_betas(100)), np.array([0.7, 0.2, 0.05, 0.0])
    for make, said in (
        (lambda: samplers.dpmpp_sde(VP, r=1.0), "second look"),
        (lambda: samplers.dpmpp_sde(VP, eta=1.5), "eta"),
        (lambda: samplers.dpm_fast(VP, 0), "at least once beside its step to 0"),
        (lambda: samplers.dpm_fast(VP, 7, s_noise=-1.0), "s_noise"),
        (lambda: samplers.dpm_fast(VP, 7).plan(times[:2], times[1:3]), r"log_snr\(schedule, 4\)"),
        (lambda: samplers.dpm_adaptive(VP, order=1), "order 2 or 3"),
        (lambda: samplers.dpm_adaptive(VP, rtol=0.0), "above 0"),
        (lambda: samplers.dpm_adaptive(table).plan(np.array([0.5]), np.array([0.49])), "table"),
        (lambda: samplers.dpm_adaptive(schedules.flow()).plan(np.array([1.0]), np.array([0.5])), "infinite"),
    ):
        with pytest.raises(InputError, match=said):
            make()
