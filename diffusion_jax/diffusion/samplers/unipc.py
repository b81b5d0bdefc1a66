"""UniPC: a multistep solver that corrects each step when it looks at where it led (Zhao et al. 2023).

In log-SNR, with h the step's length, r_i the places of what is remembered in units of h (r_i < 0 before the step, 1
at its end) and m_i what was seen there, D or eps,

    x_s = x x_t + level m_0 + B sum_i rho_i (m_i - m_0) / r_i,     sum_i rho_i r_i^(k - 1) = b_k,

where b_k is what makes the solution of degree k exact (theorem 3.1): with z = -h for D and h for eps,
b_k = k! phi_{k+1}(z) z / B(z), phi the exponential integrators'. B(z) = z is "bh1", B(z) = e^z - 1 is "bh2". The
predictor (UniP) has the memories alone; the corrector (UniC) has also what the next look sees, and costs no look of
its own: the corrected point is where the next step starts, but what was seen is kept from where it was seen.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.protocols import Orders
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler, within
from diffusion_jax.diffusion.samplers.dpm import Form, data, left
from diffusion_jax.diffusion.samplers.multistep import attainable, before
from diffusion_jax.diffusion.schedules import Schedule

MEMORIES = 3


class UniPCPlan(NamedTuple):
    """At t, e = read_x x_t + read_x0 D is seen. First x_t becomes keep x_t + back x_before + corrected . seen, and
    then x_s = x x_t + weights . seen; `seen` are e and three memories, x_before is where the last step started.

    Arrays [N], the last two of each kind [N, 4].
    """

    t: jax.Array
    read_x: jax.Array
    read_x0: jax.Array
    keep: jax.Array
    back: jax.Array
    corrected: jax.Array
    x: jax.Array
    weights: jax.Array


class Corrected(NamedTuple):
    """The images, where the last step started (both [B, ...]), and what was last seen: [3, B, ...]."""

    x: jax.Array
    start: jax.Array
    seen: jax.Array


def bh1(z: Any) -> Any:
    """B(z) = z."""
    return z


def bh2(z: Any) -> Any:
    """B(z) = e^z - 1, which the paper prefers for few steps."""
    return np.expm1(z)


def unipc(schedule: Schedule, orders: Orders, form: Form | None = None, gain: Callable[[Any], Any] = bh2) -> Sampler:
    """UniPC of order p, one look a step: UniP-p and then UniC-p, whose error is of order p + 1.

    Where lambda is infinite (t = 1 where alpha = 0; s = 0) steps are of first order and not corrected. The step to
    s = 0 returns the estimate for D, and Euler's point for eps.

    Args:
      schedule: alpha and sigma.
      orders: `N -> orders [N]` of the N steps, 1 to 3 (`at_most`).
      form: what is remembered: `dpm.data()`, the default, or `dpm.NOISE`.
      gain: B, `bh1` or `bh2`.

    Raises:
      InputError: by the plan, unless 0 <= s < t <= 1; for eps where alpha(t) = 0.
    """
    form = data() if form is None else form

    def plan(t, s):
        check_interval(t, s)
        with np.errstate(divide="ignore"):
            h = -np.log(left(schedule, t, s))
        terms = form.terms(schedule, t, s, h)
        order = np.where(np.isfinite(h), attainable(h, orders(len(t))), 1)
        predict, correct = zip(*(_weights(h, n, order[n], form.sign, gain) for n in range(len(t))), strict=True)
        level = terms.level[:, None]
        base = level * np.eye(MEMORIES + 1)[0]
        moved = base + level * np.array(predict)
        arrived = level * (np.eye(MEMORIES + 1)[1] + np.array(correct))
        finite = np.isfinite(h)
        # What is corrected at t is the step before.
        again = before(finite, 1, False).astype(bool)
        corrected = np.where(again[:, None], np.roll(arrived, 1, axis=0), 0.0)
        back = np.where(again, before(terms.x, 1, 0.0), 0.0)
        return UniPCPlan(t, *form.read(schedule, t), 1.0 - again, back, corrected, terms.x, moved)

    def init(x):
        return Corrected(x, jnp.zeros_like(x), jnp.zeros((MEMORIES, *x.shape), x.dtype))

    def step(keys, state, plan, denoise):
        now = plan.read_x * state.x + plan.read_x0 * denoise(state.x, plan.t).mean
        seen = jnp.concatenate([now[None].astype(state.seen.dtype), state.seen])
        start = plan.keep * state.x + plan.back * state.start + _mean(plan.corrected, seen)
        x = plan.x * start + _mean(plan.weights, seen)
        return Corrected(x.astype(state.x.dtype), start.astype(state.x.dtype), seen[:-1])

    return Sampler(plan, init=init, step=step, done=lambda state: state.x, put=within)


def _mean(weights, seen):
    return jnp.sum(expand(weights, seen) * seen, axis=0)


def _weights(h, number: int, order: int, sign: float, gain: Callable[[Any], Any]) -> tuple[np.ndarray, np.ndarray]:
    """Of the step `number`, in units of the weight of m_0 in a step of first order: what the predictor adds for
    m_0, m_1, m_2 (and nothing), and what the corrector adds for the look at the end, m_0, m_1 and m_2; both [4].
    """
    predict, correct = np.zeros(MEMORIES + 1), np.zeros(MEMORIES + 1)
    if not np.isfinite(h[number]):
        return predict, correct
    z = sign * h[number]
    share = gain(z) / np.expm1(z)
    places = [-h[number - i : number].sum() / h[number] for i in range(1, order)]
    wanted, term = [], np.expm1(z) / z - 1
    for k in range(1, order + 1):
        wanted.append(term * math.factorial(k) / gain(z))
        term = term / z - 1 / math.factorial(k + 1)
    known = _solved(places, wanted[:-1])
    known = np.full(1, 0.5) if order == 2 else known  # as in the published code
    ended = _solved([*places, 1.0], wanted) if order > 1 else np.full(1, 0.5)
    for i, (rho, place) in enumerate(zip(known, places, strict=True), 1):
        predict[[i, 0]] += share * rho / place * np.array([1, -1])
    # The corrector's columns: what is seen at the end, m_0, m_1, m_2.
    for i, (rho, place) in enumerate(zip(ended, [*places, 1.0], strict=True), 1):
        correct[[0 if place == 1.0 else i + 1, 1]] += share * rho / place * np.array([1, -1])
    return predict, correct


def _solved(places, wanted) -> np.ndarray:
    """rho with sum_i rho_i r_i^(k - 1) = b_k."""
    if not places:
        return np.zeros(0)
    return np.linalg.solve(np.vander(places, increasing=True).T, wanted)
