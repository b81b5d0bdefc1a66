"""Editing: from a chosen time on, the law and how much is left of the image are known for exact denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import (
    editing,
    guidance,
    inpainting,
    parameterizations,
    processes,
    samplers,
    schedules,
    timesteps,
)
from tests.diffusion.samplers.mixture import CENTRES, WEIGHTS, WIDTH, two_modes

pytestmark = pytest.mark.slow

SCHEDULE = schedules.vp_linear()
PROCESS = processes.gaussian(SCHEDULE)
MEAN, VAR = 0.3, 0.25


def exact(schedule):
    """p(x0 | x_t) of data N(MEAN, VAR): with its variance every step of an ancestral chain is exact."""

    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        total = alpha**2 * VAR + sigma**2
        mean = MEAN + alpha * VAR / total * (x - alpha * MEAN)
        return Gaussian(mean, jnp.broadcast_to(VAR * sigma**2 / total, x.shape))

    return denoise


def edited(denoise, x0, start, sampler, times, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(x0))
    run = editing.from_image(PROCESS, x0, start)
    return np.asarray(jax.jit(lambda: run(sampler, times, denoise, None, keys))())


# ---- From an image.


@pytest.mark.parametrize("start", [0.05, 0.15, 0.3, 1.0])
def test_what_is_left_of_the_image_is_known(start):
    """Gaussian data, seed 0, 300 x 64: given x_t, x0 and the edit are independent draws of p(x0 | x_t). So the edit's
    law is the data's and E(edit - x0)^2 = 2 E Var[x0 | x_t].

    Within 4.9 standard errors (a false alarm in 10^6 each). Control: from half that time it would not be that, until
    all is lost.
    """
    x0 = MEAN + VAR**0.5 * jax.random.normal(jax.random.key(1), (300, 64))
    out = edited(exact(SCHEDULE), x0, start, samplers.ancestral(PROCESS, end=draw), timesteps.linear(20))
    error = 4.9 * (2 / out.size) ** 0.5

    def apart(t):
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        return 2 * VAR * sigma**2 / (alpha**2 * VAR + sigma**2)

    assert abs(out.mean() - MEAN) < 4.9 * (VAR / out.size) ** 0.5
    assert abs(out.var() / VAR - 1) < error
    measured = np.mean((out - x0) ** 2)
    print(measured, apart(start))
    assert abs(measured / apart(start) - 1) < error
    assert (abs(measured / apart(start / 2) - 1) > error) == (start < 1)


def test_data_of_two_modes_keep_their_law():
    """The tail from t = .3 of a grid of 200 steps, 60 x 64 draws of the mixture, seed 0.

    Share and width within 4.9 standard errors (10^-6) and what the steps cost, .01 and 5 %. A quarter of the smaller
    mode changes sides, or the test would say little. Control: data of one mode alone do not become the mixture.
    """
    generator = np.random.default_rng(0)
    mode = generator.choice(2, size=(60, 64), p=WEIGHTS)
    x0 = CENTRES[mode] + WIDTH * generator.normal(size=mode.shape)
    times, sampler = timesteps.log_snr(SCHEDULE, 200), samplers.ancestral(PROCESS)

    def first(x):
        return x < CENTRES.mean()

    out = edited(two_modes(SCHEDULE), x0, 0.3, sampler, times)
    error = 4.9 * np.sqrt(np.prod(WEIGHTS) / out.size)
    print(first(out).mean(), (first(out) != (mode == 0))[mode == 1].mean(), out[first(out)].var() / WIDTH**2)
    assert abs(first(out).mean() - WEIGHTS[0]) < error + 0.01
    assert abs(out[first(out)].var() / WIDTH**2 - 1) < 4.9 * (2 / first(out).sum()) ** 0.5 + 0.05
    assert first(out)[mode == 1].mean() > 0.25
    alone = edited(two_modes(SCHEDULE), np.full_like(x0, CENTRES[1]), 0.3, sampler, times)
    assert abs(first(alone).mean() - WEIGHTS[0]) > error + 0.1


def edit_fn(process, schedule, start, times, **others):
    return editing.image_to_image(
        lambda params, x, time, *cond: params * jnp.tanh(x + sum(c["label"][:, None] for c in cond)),
        parameterizations.x0(parameterizations.thousandths),
        process,
        samplers.euler(schedule),
        times,
        start,
        **others,
    )


def test_from_the_grids_start_it_is_the_plain_chain_where_nothing_is_left():
    """Cosine: alpha(1) = 0, and the noise is the prior's own. Control: a schedule that leaves something."""
    x0, times = 5 * jnp.ones((4, 3)), timesteps.linear(10)
    for schedule, same in ((schedules.cosine(), True), (schedules.vp_linear(0.1, 5.0), False)):
        process = processes.gaussian(schedule)
        plain = samplers.make_sample_fn(
            lambda params, x, time: params * jnp.tanh(x),
            parameterizations.x0(parameterizations.thousandths),
            process,
            samplers.euler(schedule),
            times,
            4,
            (3,),
        )
        got = jax.jit(edit_fn(process, schedule, 1.0, times))(0.9, jax.random.key(0), x0)
        want = jax.jit(plain)(0.9, jax.random.key(0))
        assert np.allclose(got, want, rtol=1e-6) == same


def test_an_edit_is_the_tail_of_the_walk(x64):
    """Corrupted to the grid's highest time at or below the start, and from there by hand."""
    times, x0 = np.array([1.0, 0.8, 0.5, 0.3, 0.1, 0.0]), np.random.default_rng(0).normal(size=(4, 3))
    keys = rng.per_example(jax.random.key(3), jnp.arange(4))
    eps = jax.vmap(lambda key: jax.random.normal(key, (3,)))(rng.each(keys, 0))
    for start, tail in ((0.5, times[2:]), (0.79, times[2:]), (0.11, times[4:]), (0.1, times[4:])):
        x = SCHEDULE.alpha(tail[0]) * x0 + SCHEDULE.sigma(tail[0]) * eps
        sampler = samplers.euler(SCHEDULE)
        want = samplers.solve(sampler, tail, lambda x, t: Gaussian(0.9 * jnp.tanh(x)), x, keys)
        got = jax.jit(edit_fn(PROCESS, SCHEDULE, start, times))(0.9, jax.random.key(3), x0)
        np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_time_of_the_grid_is_found_in_spite_of_rounding():
    for times in (timesteps.linear(10), timesteps.uniform(30, 1000), timesteps.linear(1000)):
        for n in range(len(times) - 1):
            assert editing.below(times, float(f"{times[n]:.12g}"))[0] == times[n]


def test_conditions_guides_masks_and_parts_go_through():
    x0, cond = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3))), {"label": jnp.arange(4) % 2}
    mask = np.array([1, 0, 0])
    guide = guidance.classifier_free(guidance.replacing(label=2), 1.0)
    run = inpainting.repaint(SCHEDULE, x0, mask, 2, 2)
    times = timesteps.linear(10)
    plain = jax.jit(edit_fn(PROCESS, SCHEDULE, 0.6, times))(0.9, jax.random.key(0), x0, cond)
    guided = jax.jit(edit_fn(PROCESS, SCHEDULE, 0.6, times, guide=guide))(0.9, jax.random.key(0), x0, cond)
    np.testing.assert_allclose(guided, plain, rtol=1e-5)
    bounded = edit_fn(PROCESS, SCHEDULE, 0.6, times, transforms=[guidance.clip(-0.1, 0.1)], run=run)
    held = np.asarray(jax.jit(bounded)(0.9, jax.random.key(0), x0, cond))
    np.testing.assert_array_equal(held[:, 0], x0[:, 0])
    assert np.abs(held[:, 1:]).max() <= 0.1 + 1e-6
    # Data of several parts.
    both = processes.product(a=PROCESS, b=PROCESS)
    walk = editing.from_image(both, {"a": x0, "b": x0[:, :2]}, 0.5)
    ends = samplers.each_its_own(a=samplers.on_mean, b=samplers.on_mean)
    same = lambda x, t: {name: Gaussian(0.5 * x[name]) for name in x}  # noqa: E731
    out = walk(samplers.ancestral(both, ends), [1.0, 0.5, 0.0], same, None, jax.random.split(jax.random.key(0), 4))
    assert jax.tree.map(jnp.shape, out) == {"a": (4, 3), "b": (4, 2)}


# ---- Between two.


def angle(a, b):
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    return np.arccos((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def test_slerp_is_equation_67(x64):
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3, 2))
    theta = angle(a, b)
    share = np.linspace(0.1, 0.9, 5)
    weight = [(np.sin(w * theta) / np.sin(theta)).reshape(5, 1, 1) for w in (1 - share, share)]
    got = np.asarray(editing.slerp(a, b, share))
    np.testing.assert_allclose(got, weight[0] * a + weight[1] * b, rtol=1e-10)
    np.testing.assert_allclose(editing.slerp(a, b, 0.0), a, rtol=1e-12)
    np.testing.assert_allclose(editing.slerp(a, b, 1.0), b, rtol=1e-12)
    # Of one length, the angle is walked evenly.
    b = b * (np.linalg.norm(a, axis=(1, 2)) / np.linalg.norm(b, axis=(1, 2)))[:, None, None]
    np.testing.assert_allclose(angle(np.asarray(editing.slerp(a, b, share)), a), share * angle(a, b), rtol=1e-10)


def test_slerp_of_two_alike_is_linear():
    a = jax.random.normal(jax.random.key(0), (3, 50))
    np.testing.assert_allclose(editing.slerp(a, a, 0.3), a, rtol=1e-6)
    np.testing.assert_allclose(editing.slerp(a, 1.01 * a, 0.5), 1.005 * a, rtol=1e-6)
    near = a + 1e-4 * jax.random.normal(jax.random.key(1), a.shape)
    np.testing.assert_allclose(editing.slerp(a, near, 0.5), (a + near) / 2, rtol=1e-4)


def test_noises_between_two_have_unit_variance():
    """1000 pairs of 64 entries, seed 0: 4.9 standard errors (10^-6). Control: on the straight line it is a half."""
    a, b = jax.random.normal(jax.random.key(0), (2, 1000, 64))
    error = 4.9 * (2 / a.size) ** 0.5
    for share in (0.25, 0.5):
        assert abs(np.var(editing.slerp(a, b, share)) - 1) < error
        straight = np.var((1 - share) * a + share * b)
        assert abs(straight - ((1 - share) ** 2 + share**2)) < error < 1 - straight


def test_images_between_two_are_those_of_the_noises_between(x64):
    """Gaussian data, cosine: the noise of x is (x - MEAN) / std, in the limit of short steps; first order in them."""
    schedule = schedules.cosine()
    first, second = MEAN + VAR**0.5 * np.random.default_rng(0).normal(size=(2, 3, 16))
    share = jnp.array([0.0, 0.5, 1.0])
    noises = ((x - MEAN) / VAR**0.5 for x in (first, second))
    want = MEAN + VAR**0.5 * editing.slerp(*map(jnp.asarray, noises), share)
    errors = []
    for steps in (100, 200):
        times = timesteps.linear(steps)
        between = jax.jit(
            lambda a, b, times=times: editing.interpolate(schedule, times, exact(schedule), a, b, share, iterations=3)
        )
        got = between(first, second)
        np.testing.assert_allclose(got[0], first[0], atol=5e-3)
        np.testing.assert_allclose(got[2], second[2], atol=5e-3)
        errors.append(np.abs(got - want).max())
    print(errors)
    assert errors[1] < 0.005
    assert errors[1] < 0.6 * errors[0]
    linear = first + np.asarray(share)[:, None] * (second - first)
    assert np.abs(linear - want).max() > 0.05  # control


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: editing.from_image(PROCESS, jnp.zeros((2, 3)), 0.0),
        lambda: editing.from_image(PROCESS, jnp.zeros((2, 3)), 1.1),
        lambda: editing.from_image(PROCESS, jnp.zeros((2, 3)), -0.5),
        lambda: edit_fn(PROCESS, SCHEDULE, 1.5, timesteps.linear(10)),
        lambda: edit_fn(PROCESS, SCHEDULE, 0.05, timesteps.linear(10)),
        lambda: editing.below([0.2, 0.5], 0.5),
        lambda: editing.slerp(jnp.ones((2, 3)), jnp.ones((2, 4)), 0.5),
        lambda: editing.slerp(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(3)),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(InputError) as error:
        mistake()
    assert "\n" not in str(error.value)
