"""Shortcut models on Gaussian data: what two steps make, who makes them, and which steps are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers, timesteps
from diffusion_jax.diffusion.few_step import shortcut
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.diffusion.spans import Span
from tests.diffusion.few_step.exact import EXACT, MAP, SCHEDULE, apply, average

NUM = 8
COARSE = Span(np.array([1.0, 0.5, 0.75]), np.array([0.0, 0.0, 0.5]))  # of 8 smallest steps


def loss_of(span, params, averaged, apply=apply, guide=guidance.conditioned, cond=()):
    keys = rng.per_example(rng.root(0), jnp.arange(len(span.t)))
    loss = shortcut.shortcut(apply, MAP, processes.gaussian(SCHEDULE), NUM, guide)
    x0 = np.random.default_rng(0).normal(0, 0.5, (len(span.t), 6))
    context = Context(Span(*map(jnp.asarray, span)), averages={"ema": averaged})
    return loss(keys, params, x0, context, *cond)


def test_the_exact_map_is_two_of_its_steps(x64):
    error, info = loss_of(COARSE, EXACT, EXACT)
    assert np.abs(error).max() < 1e-28
    np.testing.assert_array_equal(info["flow"], 0)
    # Controls: another map, and the exact one learning from another average. The gradient is the network's alone.
    off = np.array([0.1, 0.0, 0.0])
    assert (loss_of(COARSE, off, EXACT)[0] > 1e-5).all()
    assert (loss_of(COARSE, EXACT, off)[0] > 1e-5).all()
    of_average = jax.grad(lambda averaged: loss_of(COARSE, off, averaged)[0].sum())(EXACT)
    np.testing.assert_array_equal(of_average, 0)


def test_the_smallest_steps_match_the_flow(x64):
    """Whatever the average says; the error is that of the example's velocity."""
    fine = Span(np.arange(1, NUM + 1) / NUM, np.arange(NUM) / NUM)
    error, info = loss_of(fine, EXACT, EXACT)
    np.testing.assert_array_equal(error, loss_of(fine, EXACT, EXACT + 5)[0])
    np.testing.assert_array_equal(info["bootstrap"], 0)
    np.testing.assert_array_equal(info["flow"], error)
    assert (error > 1e-2).all()


def test_what_is_learned_from_velocities_is_their_euler_chain(x64):
    """log2 N times two steps of a half, in one step from noise, are Euler's N steps."""
    x = np.array([[1.3], [-0.4]])

    def fine(x_t, span):  # x0 by the flow's velocity where the step starts
        return Gaussian(x_t - span.t * average(span.t, span.t) * x_t)

    def doubled(denoise):
        return lambda x_t, span: Gaussian(x_t - span.t * shortcut.two_steps(denoise, x_t, span))

    denoise = fine
    for _ in range(shortcut.halvings(NUM)):
        denoise = doubled(denoise)
    keys = rng.per_example(rng.root(0), jnp.arange(2))
    jumped = samplers.solve(samplers.jump(SCHEDULE), timesteps.linear(1), denoise, x, keys)
    euler = samplers.euler(SCHEDULE)
    walked = samplers.solve(euler, timesteps.linear(NUM), lambda x, t: fine(x, Span(t, t)), x, keys)
    np.testing.assert_allclose(jumped, walked, rtol=1e-13)
    longer = samplers.solve(euler, timesteps.linear(NUM // 2), lambda x, t: fine(x, Span(t, t)), x, keys)
    assert np.abs(longer - walked).max() > 0.01


def test_guidance_enters_with_the_smallest_steps(x64):
    """Two steps of 1 / N are guided, two of 2 / N learn from what is guided already."""
    scale = 3.0

    def told(params, z, times, cond, dropout_keys=None):
        return jnp.broadcast_to(jnp.where(cond["label"] == 1, 0.0, 1.0)[:, None], z.shape) + params * z

    guide = guidance.classifier_free(guidance.replacing(label=1), shortcut.guided_at_first(scale, NUM))
    cond = ({"label": jnp.zeros(2, jnp.int32)},)
    span = Span(np.array([0.25, 0.5]), np.array([0.0, 0.0]))
    error, _ = loss_of(span, 0.0, 0.0, told, guide, cond)
    np.testing.assert_allclose(error, [(scale - 1) ** 2, 0], atol=1e-12)


def test_steps_are_drawn_from_every_grid():
    """Seed 0, 3 x 4096 bootstrapped steps: shares within 5 standard deviations, in one of 10^6 runs by chance."""
    num, total = 8, 8 * 4096
    times = shortcut.spans(num, 0.375)
    span, weight = times.draw(times.init(), jax.random.key(0), jnp.arange(total), total)
    np.testing.assert_array_equal(weight, 1)
    assert (span.length > 1.5 / num).sum() == 3 * 4096
    steps = np.asarray(1 / span.length)
    for count in (1, 2, 4):
        assert abs((steps == count).sum() - 4096) < 5 * (3 * 4096 * (1 / 3) * (2 / 3)) ** 0.5
    assert set(steps) == {1, 2, 4, 8}
    place = np.asarray(span.s) * steps
    np.testing.assert_array_equal(place, np.rint(place))  # on the grid, exactly
    for count in (2, 4, 8):
        assert set(place[steps == count]) == set(range(count))
    assert ((span.t <= 1) & (span.s >= 0)).all()


def test_the_network_is_told_the_logarithm_of_the_length():
    lengths = jnp.array([1.0, 0.5, 0.125, 0.0625, 0.0])
    np.testing.assert_allclose(shortcut.level(8)(lengths), [0, 1, 3, 3, 3])
    shown = parameterizations.flow_map(MAP, shortcut.level(8)).scale(jnp.ones((1, 2)), jnp.array([0.5]))
    np.testing.assert_allclose(shown[1][1], 3)  # a time is a step of the smallest length
    for wrong in (0, 1, 12):
        with pytest.raises(InputError, match="take a power of two"):
            shortcut.spans(wrong)
    with pytest.raises(InputError, match=r"a share of -0.1 that bootstraps"):
        shortcut.spans(8, -0.1)
