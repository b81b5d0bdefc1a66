"""Pseudo numerical methods (Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds").

DDIM holds the estimated noise eps = (x_t - alpha_t D) / sigma_t still all the way from t to s,

    phi(x_t, eps, t, s) = (alpha_s / alpha_t) x_t + (sigma_s - alpha_s sigma_t / alpha_t) eps        (equation 11).

A pseudo numerical method moves by phi as well, with an eps that a classical method has averaged. Adams and
Bashforth's costs one network evaluation a step, because it remembers what the steps before saw,

    (55 eps_t - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24        (equation 12),

and the first steps, which remember too little, look several times, as Runge and Kutta's does (equation 13).

Both take all steps to be equally long. In t they are; in sigma / alpha, along which phi moves, they are only where
that is a straight line. There the method has the order of its parts, and elsewhere the second.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import expand
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler, within
from diffusion_jax.diffusion.samplers.ode import finite_level
from diffusion_jax.diffusion.schedules import Schedule

# Orders 1 to 4: weights of what is seen now, and of what was seen one, two and three steps before.
ADAMS_BASHFORTH = np.array([[24, 0, 0, 0], [36, -12, 0, 0], [46, -32, 10, 0], [55, -59, 37, -9]]) / 24


class Start(NamedTuple):
    """How the first steps are made.

    Attributes:
      nodes: where along a step to look, from 0, its start, to 1, its end; the first is 0. Each is reached from the
        start, by what was seen at the node before.
      weights: of what is seen at the nodes, in the mean that the step is made with.
      steps: how many steps are made so.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    steps: int


RUNGE_KUTTA = Start((0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6), steps=3)
IMPROVED_EULER = Start((0.0, 1.0), (0.5, 0.5), steps=1)


class Direction(NamedTuple):
    """What is seen and averaged: an e that is linear in x_t and the estimate D, and moves x_t to x_s.

    Attributes:
      read: `(schedule, t) -> (a, b)`: e = a x_t + b D.
      move: `(schedule, t, s) -> (a, b)`: x_s = a x_t + b e.
    """

    read: Callable[[Schedule, np.ndarray], tuple[np.ndarray, np.ndarray]]
    move: Callable[[Schedule, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _read_noise(schedule: Schedule, t):
    return 1 / schedule.sigma(t), -schedule.alpha(t) / schedule.sigma(t)


def _move_by_noise(schedule: Schedule, t, s):
    toward = schedule.sigma(s) - schedule.alpha(s) * finite_level(schedule, t)
    return schedule.alpha(s) / schedule.alpha(t), toward


def _read_velocity(schedule: Schedule, t):
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha / sigma, -(alpha**2 + sigma**2) / sigma


def _move_by_velocity(schedule: Schedule, t, s):
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((schedule.alpha(at), schedule.sigma(at)) for at in (t, s))
    square = alpha_t**2 + sigma_t**2
    return (alpha_s * alpha_t + sigma_s * sigma_t) / square, (sigma_s * alpha_t - alpha_s * sigma_t) / square


NOISE = Direction(_read_noise, _move_by_noise)  # the paper's
# v = alpha eps - sigma x0. It turns while eps and x0 hold still, and so its average is not where the average eps
# goes: of first order only. diffusers does so for networks that say v.
VELOCITY = Direction(_read_velocity, _move_by_velocity)


class Look(NamedTuple):
    """One look, if `due`: at `tau`, from x x_t + seen (what the look before saw), it sees read_x (that) + read_x0 D.

    Arrays [N, S] over a grid, scalars in a look.
    """

    due: jax.Array
    tau: jax.Array
    x: jax.Array
    seen: jax.Array
    read_x: jax.Array
    read_x0: jax.Array


class PNDMPlan(NamedTuple):
    """x_s = x x_t + mean (the mean of S looks and 3 memories, by `weights` [N, S + 3]); `x` and `mean` are [N]."""

    looks: Look
    weights: jax.Array
    x: jax.Array
    mean: jax.Array


class Remembering(NamedTuple):
    """The images [B, ...], and what was seen at the start of the last three steps, the newest first: [3, B, ...]."""

    x: jax.Array
    seen: jax.Array


def pndm(
    schedule: Schedule,
    start: Start = RUNGE_KUTTA,
    direction: Direction = NOISE,
    near: Callable[[np.ndarray], np.ndarray] = lambda t: t,
) -> Sampler:
    """PNDM (Liu et al. 2022, algorithm 2): three steps of Runge and Kutta's, then Adams and Bashforth's.

    One network evaluation a step, but as many as it has nodes in a step of `start`. A step to s = 0, where the noise
    has no value, is never one of those: it looks at its start alone, by the method of as high an order as there are
    memories for.

    Args:
      schedule: the process's.
      start: `RUNGE_KUTTA`, or `IMPROVED_EULER` as in `plms`.
      direction: what is averaged, `NOISE` or `VELOCITY`.
      near: `times -> times`, to where the schedule is known; it leaves the grid's as they are.

    Raises:
      InputError: by the plan, unless 0 <= s < t <= 1; and for `NOISE` where alpha(t) = 0, for there phi has no
        value: start a grid of `cosine` or `flow` below t = 1.
    """

    def plan(t, s):
        check_interval(t, s)
        number, nodes, t_, s_ = np.arange(len(t)), np.array(start.nodes), t[:, None], s[:, None]
        starting = (number[:, None] < start.steps) & (s_ > 0)
        due = starting | (np.arange(len(nodes)) == 0)
        tau = near(np.where(due, t_ + nodes * (s_ - t_), t_))
        now, before = np.split(ADAMS_BASHFORTH[np.minimum(number, 3)], [1], axis=1)
        multistep = np.concatenate([now, np.zeros((len(t), len(nodes) - 1)), before], axis=1)
        return PNDMPlan(
            Look(due, tau, *direction.move(schedule, t_, tau), *direction.read(schedule, tau)),
            np.where(starting, np.append(start.weights, np.zeros(3)), multistep),
            *direction.move(schedule, t, s),
        )

    def step(keys, state, plan, denoise):
        def look(before, look):
            def see():
                x = look.x * state.x + look.seen * before
                return look.read_x * x + look.read_x0 * denoise(x, look.tau).mean

            seen = jax.lax.cond(look.due, see, lambda: before)
            return seen, seen

        _, seen = jax.lax.scan(look, jnp.zeros_like(state.x), plan.looks)
        known = jnp.concatenate([seen, state.seen])
        mean = jnp.sum(expand(plan.weights, known) * known, axis=0)
        return Remembering(plan.x * state.x + plan.mean * mean, jnp.concatenate([seen[:1], state.seen[:2]]))

    return Sampler(plan, init=_init, step=step, done=lambda state: state.x, put=within)


def plms(schedule: Schedule) -> Sampler:
    """PNDM that begins with one step of improved Euler's, as Stable Diffusion does: N + 1 evaluations in N steps.

    Then orders 2, 3 and 4 of Adams and Bashforth's method. Errors as of `pndm`.
    """
    return pndm(schedule, IMPROVED_EULER)


def _init(x) -> Remembering:
    return Remembering(x, jnp.zeros((3, *x.shape), x.dtype))
