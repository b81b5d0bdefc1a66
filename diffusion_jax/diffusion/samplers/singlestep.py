"""DPM-Solver's single-step methods: a few looks on the way, and then the step from where it began.

A cycle of order p takes the grid's next p steps. The first is of first order; each of the others starts from the
cycle's beginning again, and puts what was seen since then under the integral of `dpm`, from there to its own end. So
a cycle is one Runge-Kutta step whose nodes are the grid's times, and nothing is remembered from cycle to cycle.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Orders
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.dpm import Form, Terms, left, midpoint
from diffusion_jax.diffusion.samplers.multistep import MultistepPlan, Remembered
from diffusion_jax.diffusion.samplers.ode import finite_level
from diffusion_jax.diffusion.schedules import Schedule


class Cycling(NamedTuple):
    """The images, what was last seen, and where the cycle began: [B, ...]."""

    now: Remembered
    start: jax.Array


def cycles(order: int) -> Orders:
    """`N -> orders [N]`: 1, 2, ..., `order`, again and again, and a last step of first order."""

    def orders(steps):
        found = np.arange(steps) % order + 1
        found[-1] = 1
        return found

    return orders


Second: TypeAlias = Callable[[Terms], np.ndarray]  # what multiplies D' in a step of second order, [N]
# What a third order adds to the first, [N, 3]: of the terms, both differences over their lengths, and the lengths.
Third: TypeAlias = Callable[[Terms, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def straight(terms: Terms, lately: np.ndarray, early: np.ndarray, r_2: np.ndarray, r_1: np.ndarray) -> np.ndarray:
    """What a third order adds to the first: the whole integral's slope from the last look, as DPM-Solver-3 has it."""
    return terms.slope[:, None] * lately


def curved(terms: Terms, lately: np.ndarray, early: np.ndarray, r_2: np.ndarray, r_1: np.ndarray) -> np.ndarray:
    """Slope and curvature of the parabola through all three looks."""
    lean, bend = (r_2 * early - r_1 * lately) / (r_2 - r_1), (lately - early) / (r_2 - r_1)
    return terms.slope[:, None] * lean + terms.bend[:, None] * bend


def dpm_singlestep(
    schedule: Schedule, form: Form, orders: Orders, second: Second = midpoint, third: Third = straight
) -> Sampler:
    """DPM-Solver-2 and -3 and their like of D, at the grid's times.

    (Lu et al. 2022, "DPM-Solver", algorithms 1 and 2.) One look a step; of the order of its cycles.

    Args:
      schedule: alpha and sigma.
      form: `dpm.data(eta)` or `dpm.NOISE`.
      orders: `N -> orders [N]` (`cycles`): 1 begins a cycle, and every other is one more than the one before.
      second: of the second order: `dpm.midpoint` or `dpm.exact`.
      third: of the third: `straight` or `curved`.

    Raises:
      InputError: by the plan, unless 0 <= s < t <= 1; where alpha(t) = 0; for a step to s = 0 of another order.
    """

    def plan(t, s):
        check_interval(t, s)
        order = orders(len(t))
        if (order[s == 0] > 1).any():
            raise InputError("a single-step solver ends its chain at s = 0 by a step of first order")
        finite_level(schedule, t)
        first = t[np.arange(len(t)) - (order - 1)]  # where the cycle began
        with np.errstate(divide="ignore"):
            h = -np.log(left(schedule, first, s))
            ratio = [-np.log(left(schedule, first, at)) / h for at in (t, t[np.arange(len(t)) - (order > 2)])]
        terms = form.terms(schedule, first, s, h)
        weights = _weights(terms, ratio, order, second, third)
        plan = MultistepPlan(t, *form.read(schedule, t), terms.x, weights, terms.noise)
        return order == 1, plan

    def init(x):
        return Cycling(Remembered(x, jnp.zeros((2, *x.shape), x.dtype)), x)

    def put(state, x):
        return state._replace(now=state.now._replace(x=x))

    def step(keys, state, plan, denoise):
        begins, plan = plan
        x, start = state.now.x, jnp.where(begins, state.now.x, state.start)
        now = plan.read_x * x + plan.read_x0 * denoise(x, plan.t).mean
        seen = jnp.concatenate([now[None].astype(x.dtype), state.now.seen])
        x_s = plan.x * start + jnp.sum(expand(plan.weights, seen) * seen, axis=0)
        if plan.noise is not None:
            x_s = x_s + plan.noise * rng.normal_like(keys, x)
        return Cycling(Remembered(x_s.astype(x.dtype), seen[:-1]), start)

    return Sampler(plan, init=init, step=step, done=lambda state: state.now.x, put=put)


def _weights(terms: Terms, ratio, order, second: Second, third: Third) -> np.ndarray:
    """Of what is seen now, and one and two looks before: [N, 3]; `ratio`, how far along they lie, r_2 and r_1."""
    now, one, two = np.eye(3)
    level, (r_2, r_1) = terms.level[:, None], (r[:, None] for r in ratio)
    with np.errstate(invalid="ignore", divide="ignore"):
        in_two = level * one + second(terms)[:, None] * (now - one) / r_2
        in_three = level * two + third(terms, (now - two) / r_2, (one - two) / r_1, r_2, r_1)
    return np.select([order[:, None] == 3, order[:, None] == 2], [in_three, in_two], level * now)
