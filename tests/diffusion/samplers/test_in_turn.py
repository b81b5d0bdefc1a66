"""A chain that several networks share out."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers, schedules
from diffusion_jax.diffusion.samplers import Turn

SCHEDULE = schedules.cosine()
X0 = parameterizations.x0(lambda t: t)
PROCESS = processes.gaussian(SCHEDULE)
TIMES = np.linspace(0.9, 0, 6)
BATCH, SHAPE = 3, (4,)


def apply(w, x, time):
    return jnp.tanh(w * x + time[:, None])


def turn(steps, **parts):
    return Turn(apply, X0, steps, **parts)


def both(sampler, turns, params):
    """The chain that is shared out, and that of one network with w = 0.7."""
    drawn = samplers.in_turn(turns, PROCESS, sampler, TIMES, BATCH, SHAPE)(params, rng.root(0))
    whole = samplers.make_sample_fn(apply, X0, PROCESS, sampler, TIMES, BATCH, SHAPE)(0.7, rng.root(0))
    return drawn, whole


@pytest.mark.parametrize(
    "sampler", [samplers.ancestral(PROCESS), samplers.dpmpp_2m(SCHEDULE)], ids=["with noise", "with a memory"]
)
def test_of_one_network_it_is_the_chain_as_it_is(sampler):
    drawn, whole = both(sampler, {"first": turn(3), "last": turn(2)}, {"first": 0.7, "last": 0.7})
    np.testing.assert_allclose(drawn, whole, rtol=1e-6)


def test_each_makes_its_own_steps_with_its_own_bounds():
    """Against a chain that is walked by hand; the last network bounds x0."""
    turns = {"first": turn(4), "last": turn(1, transforms=[guidance.clip(-0.1, 0.1)])}
    drawn, whole = both(samplers.ancestral(PROCESS), turns, {"first": 0.7, "last": -0.4})
    keys = rng.per_example(rng.root(0), jnp.arange(BATCH))
    x = rng.normal_like(rng.each(keys, 0), jnp.zeros((BATCH, *SHAPE)))
    for n, (t, s) in enumerate(itertools.pairwise(TIMES)):
        x0 = apply(0.7 if n < 4 else -0.4, x, jnp.full(BATCH, t, jnp.float32))
        x0 = x0 if n < 4 else jnp.clip(x0, -0.1, 0.1)
        kernel = PROCESS.bridge(t, s)(X0.read(x0, x, t), x)
        x = kernel.mean + np.sqrt(kernel.var) * rng.normal_like(rng.each(keys, n + 1), x) * (s > 0)
    np.testing.assert_allclose(drawn, x, rtol=2e-5, atol=2e-6)
    assert np.abs(np.asarray(drawn) - whole).max() > 1e-2


@pytest.mark.parametrize("steps", [(4, 2), (5, 0), (3, 1), ()])
def test_shares_that_do_not_add_up_are_refused(steps):
    turns = {str(number): turn(count) for number, count in enumerate(steps)}
    with pytest.raises(InputError, match="do not make up a chain of 5, each at least 1"):
        samplers.in_turn(turns, PROCESS, samplers.ancestral(PROCESS), TIMES, BATCH, SHAPE)


def test_only_its_own_times_must_suit_a_network():
    """eps says nothing of x0 where alpha = 0: an x0 network may begin there."""
    schedule = schedules.from_betas(np.array([0.1, 0.2, 1.0]))
    process, times = processes.gaussian(schedule), np.array([3, 2, 1, 0]) / 3
    eps = parameterizations.eps(schedule, lambda t: t)
    first, last = Turn(apply, X0, 1), Turn(apply, eps, 2)
    parts = process, samplers.ancestral(process), times, BATCH, SHAPE
    samplers.in_turn({"first": first, "last": last}, *parts)
    with pytest.raises(InputError):
        samplers.in_turn({"last": last._replace(steps=1), "first": first._replace(steps=2)}, *parts)
