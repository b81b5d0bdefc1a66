"""Inpainting: the walk is the papers', known pixels stay, and the law nears the conditional one of a Gaussian."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian, certain, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import editing, inpainting, parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.samplers.adaptive import dpm_adaptive
from diffusion_jax.diffusion.samplers.dpm import data, dpmpp_2m
from diffusion_jax.diffusion.samplers.multistep import at_most
from diffusion_jax.diffusion.samplers.pndm import plms, pndm
from diffusion_jax.diffusion.samplers.singlestep import cycles, dpm_singlestep
from diffusion_jax.diffusion.samplers.unipc import unipc

pytestmark = pytest.mark.slow

SCHEDULE = schedules.vp_linear()
PROCESS = processes.gaussian(SCHEDULE)
KEYS = jax.random.split(jax.random.key(0), 3)
KNOWN, MASK = np.random.default_rng(0).normal(size=(3, 4, 5)), np.arange(20).reshape(4, 5) % 3 == 0


def nonlinear(x, t):
    return Gaussian(jnp.tanh(1.3 * x + 0.5 * jnp.roll(x, 1, -1) - jnp.reshape(t, (-1, 1, 1))))


def start():
    return jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 5)))


def walk(run, sampler=None, times=None, x=None, denoise=nonlinear, keys=KEYS):
    sampler = samplers.ancestral(PROCESS) if sampler is None else sampler
    times = timesteps.linear(6) if times is None else times
    return np.asarray(jax.jit(lambda x: run(sampler, times, denoise, x, keys))(start() if x is None else x))


# ---- The walk.


@pytest.mark.parametrize("resamplings", [1, 3])
def test_repaint_is_algorithm_1(x64, resamplings):
    """Lugmayr et al. 2022, line by line on a table of betas with jumps of one step, with our noise.

    Their line 5 has the variance where its root belongs (compare equation 8a), and line 10 the beta of one step
    earlier than q(x_t | x_t-1).
    """
    num = 8
    betas = schedules.linear_betas(num, 0.02, 0.3)
    schedule, times = schedules.from_betas(betas), timesteps.uniform(num, num)
    alpha_bar = np.append(1.0, np.cumprod(1 - betas))
    moves = 0

    def normal(keys):
        return np.array(jax.vmap(lambda key: jax.random.normal(key, (4, 5)))(keys))

    def stream(name):
        return jax.vmap(lambda key: rng.stream(key, name, moves))(KEYS)

    def held(x, i):
        noised = np.sqrt(alpha_bar[i]) * KNOWN + np.sqrt(1 - alpha_bar[i]) * normal(stream("known"))
        return np.where(MASK, KNOWN if i == 0 else noised, x)

    x = held(np.asarray(start()), num)
    for i in range(num, 0, -1):
        for u in range(resamplings if i > 1 else 1):
            moves += 1
            if u > 0:  # undo the step that was just made
                x = np.sqrt(1 - betas[i - 1]) * x + np.sqrt(betas[i - 1]) * normal(stream("undo"))
            x0 = np.asarray(nonlinear(x, i / num).mean)
            beta, a, b = betas[i - 1], alpha_bar[i], alpha_bar[i - 1]
            mean = np.sqrt(b) * beta / (1 - a) * x0 + np.sqrt(1 - beta) * (1 - b) / (1 - a) * x
            z = normal(rng.each(KEYS, moves)) * (i > 1)
            x = held(mean + np.sqrt(beta * (1 - b) / (1 - a)) * z, i - 1)
    run = inpainting.repaint(schedule, KNOWN, MASK, 1, resamplings)
    sampler = samplers.ancestral(processes.gaussian(schedule))
    np.testing.assert_allclose(walk(run, sampler, times), x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("jump", "resamplings"), [(1, 1), (1, 4), (3, 2), (5, 3), (9, 2)])
def test_the_route_goes_up_by_jumps_and_down_by_steps(jump, resamplings):
    steps = 10
    stood, first = inpainting.route(steps, jump, resamplings)
    assert stood[0] == first[0] == steps
    assert first[-1] == 1
    np.testing.assert_array_equal(stood[1:], first[:-1] - 1)  # each step leads one point down
    up = first > stood
    assert (first - stood)[up].tolist() == [jump] * up.sum()
    where, times = np.unique(stood[up], return_counts=True)
    points = np.arange(1, steps - jump + 1, jump) if resamplings > 1 else []
    np.testing.assert_array_equal(where, points)
    assert (times == resamplings - 1).all()
    assert len(first) == steps + (resamplings - 1) * jump * ((steps - 1) // jump)


@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.cosine(), schedules.edm(5.0)], ids=["vp", "cosine", "edm"])
def test_going_up_keeps_the_marginals(schedule):
    """A point mass at 0 in place of the sampler: what is left is the noise of the last jump, of variance sigma_t^2.

    200 x 64 draws, seed 0: within 4.9 standard errors (a false alarm in 10^6). From the chain's own start at t = 1,
    where alpha may be 0, nothing is divided by it.
    """
    times, seen = np.array([1.0, 0.7, 0.4, 0.0]), []

    def spy(x, t):
        seen.append(None)
        jax.debug.callback(lambda *at: variances.append(at), t, x.var(), ordered=True)
        return Gaussian(0 * x)

    variances, shape = [], (200, 64)
    run = inpainting.repaint(schedule, np.zeros(shape), np.zeros(1), 2, 2)
    keys = jax.random.split(jax.random.key(0), 200)
    x = float(schedule.sigma(1.0)) * jax.random.normal(jax.random.key(1), shape)
    walk(run, samplers.ancestral(processes.gaussian(schedule)), times, x, spy, keys)
    jax.effects_barrier()
    assert len(seen) == 1  # traced once
    np.testing.assert_allclose([t for t, _ in variances], [1.0, 0.7, 1.0, 0.7, 0.4], rtol=1e-6)
    want = [schedule.sigma(float(np.float32(t))) ** 2 for t, _ in variances]
    np.testing.assert_allclose([v for _, v in variances], want, rtol=4.9 * (2 / (200 * 64)) ** 0.5)


def test_the_network_is_traced_once_and_called_only_on_the_way_down():
    calls, traces = [], []

    def denoise(x, t):
        traces.append(t)
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return nonlinear(x, t)

    def programme(resamplings):
        run = inpainting.repaint(SCHEDULE, KNOWN, MASK, 2, resamplings)
        traces.clear()
        walk(run, times=timesteps.linear(8), denoise=denoise)
        jax.effects_barrier()
        return len(traces)

    counts = []
    for resamplings in (1, 20):
        assert programme(resamplings) == 1
        counts.append(len(calls))
        calls.clear()
    assert counts == [8, 8 + 19 * 6]


@pytest.mark.parametrize("make", [samplers.euler, samplers.heun, lambda schedule: samplers.ancestral(PROCESS)])
def test_with_nothing_known_and_no_resampling_it_is_the_plain_walk(x64, make):
    times, nothing = np.array([0.9, 0.6, 0.3, 0.1, 0.0]), np.zeros((1, 1), bool)
    want = walk(samplers.solve, make(SCHEDULE), times)
    for run in (inpainting.repaint(SCHEDULE, KNOWN, nothing, 1, 1), inpainting.replacement(PROCESS, KNOWN, nothing)):
        np.testing.assert_allclose(walk(run, make(SCHEDULE), times), want, rtol=1e-12)
    again = inpainting.repaint(SCHEDULE, KNOWN, nothing, 1, 2)
    assert np.abs(walk(again, make(SCHEDULE), times) - want).max() > 0.1  # control


def test_replacement_is_repaint_without_resampling():
    repaint, replaced = inpainting.repaint(SCHEDULE, KNOWN, MASK, 1, 1), inpainting.replacement(PROCESS, KNOWN, MASK)
    np.testing.assert_allclose(walk(repaint), walk(replaced), rtol=1e-6)


@pytest.mark.parametrize("strength", [None, 0.7])
@pytest.mark.parametrize("noisy", [True, False])
def test_one_noise_for_all_steps_or_none(x64, noisy, strength):
    """DDIM by hand: what is known has the noise of the chain's start, or none; with fresh noise it ends elsewhere."""
    times = np.array([0.9, 0.7, 0.4, 0.2, 0.0])
    run = inpainting.path(PROCESS, KNOWN, MASK) if noisy else inpainting.clean(KNOWN, MASK)
    if strength is not None:
        run, times_from = editing.from_image(PROCESS, KNOWN, strength, run), times[1:]
    else:
        times_from = times
    eps = np.array(jax.vmap(lambda key: rng.flat(jax.random.normal, key, (4, 5)))(rng.each(KEYS, 0)))

    def at(t, noisy=True):
        return SCHEDULE.alpha(t) * KNOWN + SCHEDULE.sigma(t) * eps * noisy if noisy and t else KNOWN

    x = np.array(start()) if strength is None else at(times_from[0])
    x = x if noisy else np.where(MASK, KNOWN, x)
    for t, s in pairwise(times_from):
        x0 = np.array(nonlinear(x, t).mean)
        keep = SCHEDULE.sigma(s) / SCHEDULE.sigma(t)
        x = np.where(MASK, at(s, noisy), keep * x + (SCHEDULE.alpha(s) - keep * SCHEDULE.alpha(t)) * x0)
    ddim = samplers.ddim(SCHEDULE, 0.0)
    np.testing.assert_allclose(walk(run, ddim, times), x, rtol=1e-9, atol=1e-12)
    if strength is None:
        assert np.abs(walk(inpainting.replacement(PROCESS, KNOWN, MASK), ddim, times) - x).max() > 0.01  # control


@pytest.mark.parametrize(
    "sampler",
    [
        dpmpp_2m(SCHEDULE),
        plms(SCHEDULE),
        pndm(SCHEDULE),
        unipc(SCHEDULE, at_most(2)),
        dpm_singlestep(SCHEDULE, data(), cycles(2)),
        dpm_adaptive(SCHEDULE),
    ],
)
def test_samplers_with_memory_keep_what_they_remember(x64, sampler):
    times, nothing = np.array([0.9, 0.6, 0.3, 0.1, 0.0]), np.zeros((1, 1), bool)
    kept = walk(inpainting.path(PROCESS, KNOWN, nothing), sampler, times)
    np.testing.assert_allclose(kept, walk(samplers.solve, sampler, times), rtol=1e-9)
    known = walk(inpainting.path(PROCESS, KNOWN, MASK), sampler, times)
    np.testing.assert_array_equal(known[:, MASK], KNOWN[:, MASK])
    assert np.abs(known - kept)[:, ~MASK].max() > 0.01  # the rest is told


def test_dpmpp_2m_inpaints_as_it_is_written(x64):
    """Lu et al. 2022, algorithm 2, with what is known put in after each step."""
    times = np.array([0.9, 0.7, 0.4, 0.2, 0.0])
    x, before = np.where(MASK, KNOWN, np.array(start())), None
    for t, s in pairwise(times):
        seen = np.array(nonlinear(x, t).mean)
        with np.errstate(divide="ignore"):
            lambdas = np.log(SCHEDULE.alpha(np.array([t, s])) / SCHEDULE.sigma(np.array([t, s])))
        h = lambdas[1] - lambdas[0]
        mean = seen
        if before is not None and s > 0:
            ratio = (lambdas[0] - before[0]) / h
            mean = (1 + 1 / (2 * ratio)) * seen - before[1] / (2 * ratio)
        x = SCHEDULE.sigma(s) / SCHEDULE.sigma(t) * x - SCHEDULE.alpha(s) * np.expm1(-h) * mean
        before, x = (lambdas[0], seen), np.where(MASK, KNOWN, x)
    np.testing.assert_allclose(walk(inpainting.clean(KNOWN, MASK), dpmpp_2m(SCHEDULE), times), x, rtol=1e-9)
    first_order = walk(inpainting.clean(KNOWN, MASK), samplers.ddim(SCHEDULE, 0.0), times)
    assert np.abs(first_order - x).max() > 0.01  # control


# ---- What is known.


@pytest.mark.parametrize(
    "schedule", [schedules.cosine(), schedules.sigmoid(), schedules.flow(), schedules.edm(), schedules.sub_vp()]
)
def test_known_pixels_come_out_exactly(schedule):
    sampler = samplers.ancestral(processes.gaussian(schedule))
    out = walk(inpainting.repaint(schedule, KNOWN, MASK, 1, 2), sampler, np.array([0.9, 0.6, 0.3, 0.0]))
    np.testing.assert_array_equal(out[:, MASK], KNOWN.astype(np.float32)[:, MASK])
    assert np.abs(out - KNOWN)[:, ~MASK].min() > 1e-4


@pytest.mark.parametrize("mask", [MASK.astype(np.float32), MASK[:, :1] * 0.9, np.arange(3).reshape(3, 1, 1) == 1])
def test_masks_broadcast_and_may_be_traced(mask):
    @jax.jit
    def out(known, mask):
        run = inpainting.replacement(PROCESS, known, mask)
        return run(samplers.ancestral(PROCESS), timesteps.linear(3), nonlinear, start(), KEYS)

    x, known = np.asarray(out(KNOWN, mask)), np.broadcast_to(mask > 0.5, KNOWN.shape)
    np.testing.assert_array_equal(x[known], KNOWN.astype(np.float32)[known])
    assert np.abs(x - KNOWN)[~known].min() > 1e-4


def test_what_lies_under_the_mask_is_of_no_account():
    """NaN may stand there."""
    out = walk(inpainting.repaint(SCHEDULE, np.where(MASK, KNOWN, np.nan), MASK, 2, 2))
    np.testing.assert_array_equal(out, walk(inpainting.repaint(SCHEDULE, np.where(MASK, KNOWN, 7.0), MASK, 2, 2)))
    assert np.isfinite(out).all()


def test_a_grid_that_ends_above_0_ends_in_noise():
    """The known part too: 40000 entries, seed 0, within 4.9 standard errors (a false alarm in 10^6)."""
    shape, times = (400, 100), np.array([1.0, 0.5, 0.2])
    keys = jax.random.split(jax.random.key(0), shape[0])
    run = inpainting.replacement(PROCESS, np.ones(shape), np.ones(1))
    out = walk(run, None, times, jnp.zeros(shape), lambda x, t: Gaussian(x), keys)
    alpha, sigma = SCHEDULE.alpha(0.2), SCHEDULE.sigma(0.2)
    assert abs(out.mean() - alpha) < 4.9 * sigma / out.size**0.5
    assert abs(out.var() / sigma**2 - 1) < 4.9 * (2 / out.size) ** 0.5


def test_tokens_and_images_beside_them_are_replaced():
    mask_token, vocab, batch = 4, 5, 6
    process = processes.product(image=PROCESS, text=processes.masked(processes.linear_alpha, vocab, mask_token))
    known = {"image": np.ones((batch, 3)), "text": np.tile([0, 1, 2, 3], (batch, 1))}
    mask = {"image": np.array([1, 0, 0]), "text": np.array([True, False, True, False])}
    revealed = parameterizations.substitution(mask_token, parameterizations.thousandths)

    def denoise(x, t):
        said = certain(jnp.full_like(x["text"], 3), vocab).logits
        return {"image": Gaussian(0.1 * x["image"]), "text": revealed.read(said, x["text"], t)}

    keys = jax.random.split(jax.random.key(0), batch)
    x = jax.vmap(lambda key: process.prior(key, {"image": (3,), "text": (4,)}))(keys)
    ends = samplers.each_its_own(image=samplers.on_mean, text=draw)
    run = inpainting.replacement(process, known, mask)
    sampler = samplers.ancestral(process, ends)
    out = jax.jit(lambda x: run(sampler, timesteps.linear(5), denoise, x, keys))(x)
    np.testing.assert_array_equal(out["text"], np.tile([0, 3, 2, 3], (batch, 1)))
    assert out["text"].dtype == jnp.int32
    np.testing.assert_array_equal(out["image"][:, 0], 1.0)
    assert np.abs(out["image"][:, 1:] - 1).min() > 0.1


# ---- The law. Three coordinates, each correlated with the next; the first is known.

MEAN, COVARIANCE = np.array([0.5, -0.3, 0.2]), 0.8 ** np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
FIRST = 1.7
RATIO = COVARIANCE[1:, 0] / COVARIANCE[0, 0]
WANTED = MEAN[1:] + RATIO * (FIRST - MEAN[0]), COVARIANCE[1:, 1:] - np.outer(RATIO, COVARIANCE[0, 1:])


def correlated(x, t):
    """p(x0 | x_t): exact, but for the correlation of the variance, which an estimate does not have."""
    size, axes = np.linalg.eigh(COVARIANCE)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    total = alpha**2 * size + sigma**2
    mean = MEAN + ((x - alpha * MEAN) @ axes * (alpha * size / total)) @ axes.T
    return Gaussian(mean, jnp.broadcast_to((axes**2) @ (size * sigma**2 / total), x.shape))


def test_resampling_nears_the_conditional_law():
    """40 steps with jumps of 1; 100 x 40 draws, seed 0. Errors of mean and covariance in the Frobenius norm.

    Their standard errors are .016 and .02. With r = 20 they are within 5 of these, a false alarm in 10^6, and .08
    and .02 for what the steps and a finite r cost. Control: plain replacement is off by .6 and .3; r = 3 between.
    """
    keys = jax.random.split(jax.random.key(0), 100)
    x = jax.random.normal(jax.random.key(1), (100, 40, 3))
    known, mask = np.full(x.shape, FIRST), np.array([1, 0, 0])

    def errors(run):
        out = walk(run, None, timesteps.linear(40), x, correlated, keys).reshape(-1, 3)
        np.testing.assert_array_equal(out[:, 0], np.float32(FIRST))
        off = out[:, 1:].mean(0) - WANTED[0], np.cov(out[:, 1:].T) - WANTED[1]
        print([np.round(np.linalg.norm(a), 3) for a in off])
        return np.array([np.linalg.norm(a) for a in off])

    replaced = errors(inpainting.replacement(PROCESS, known, mask))
    little, much = (errors(inpainting.repaint(SCHEDULE, known, mask, 1, r)) for r in (3, 20))
    assert (much < [5 * 0.016 + 0.08, 5 * 0.02 + 0.02]).all()
    assert (little > much + [0.1, 0.02]).all()
    assert (replaced > little + [0.2, 0.1]).all()


# ---- In a sample_fn, and mistakes.


def test_it_takes_the_place_of_solve():
    shares = []
    sampler = samplers.reporting(samplers.ancestral(PROCESS), lambda share: shares.append(float(share)), every=5)
    sample_fn = samplers.make_sample_fn(
        lambda params, x, time: params * jnp.tanh(x),
        parameterizations.x0(parameterizations.thousandths),
        PROCESS,
        sampler,
        timesteps.linear(6),
        3,
        (4, 5),
        run=inpainting.repaint(SCHEDULE, KNOWN, MASK, 2, 3),
    )
    out = np.asarray(jax.jit(sample_fn)(0.9, jax.random.key(0)))
    jax.effects_barrier()
    np.testing.assert_array_equal(out[:, MASK], KNOWN.astype(np.float32)[:, MASK])
    assert sorted(shares) == pytest.approx([5 / 14, 10 / 14, 1.0])  # of the steps down that are made


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: inpainting.repaint(SCHEDULE, KNOWN, MASK, jump=0),
        lambda: inpainting.repaint(SCHEDULE, KNOWN, MASK, resamplings=0),
        lambda: inpainting.repaint(SCHEDULE, KNOWN, np.ones(4)),
        lambda: inpainting.repaint(SCHEDULE, KNOWN, np.ones((2, 3, 4, 5))),
        lambda: inpainting.replacement(PROCESS, KNOWN, np.ones((3, 1, 4))),
        lambda: walk(inpainting.repaint(SCHEDULE, KNOWN, MASK, jump=6)),
        lambda: walk(inpainting.repaint(SCHEDULE, KNOWN[:2], MASK, 1, 1)),
        lambda: walk(inpainting.repaint(SCHEDULE, KNOWN, MASK, 1, 1), dpmpp_2m(SCHEDULE)),
        lambda: walk(inpainting.clean(KNOWN, MASK), dpmpp_2m(SCHEDULE)._replace(put=samplers.core.alone)),
        lambda: walk(inpainting.repaint(SCHEDULE, KNOWN, MASK, 1, 1), times=np.array([0.1, 0.5])),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(InputError) as error:
        mistake()
    assert "\n" not in str(error.value)
