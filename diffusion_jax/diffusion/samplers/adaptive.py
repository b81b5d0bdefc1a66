"""DPM-Solver-12 and -23: the steps between the grid's times are as long as an error estimate lets them be.

(Lu et al. 2022, "DPM-Solver", appendix C.) Two solvers of `nodes`, of the orders p and p - 1, share their looks. With
x and x_low their results, of d entries, and x_before the lower one's a step earlier,

    E = |(x - x_low) / max(atol, rtol max(|x_low|, |x_before|))| / sqrt(d),

and a PID controller (k-diffusion's, after Soderlind 2003) makes of E and of the errors of the two steps before the
factor by which the next step is longer; where it is small, the step is tried again.

Each example has steps of its own, so that an image does not depend on its batch. A batch is looked at until its last
example has arrived.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand, like
from diffusion_jax.core.distributions import mean_over_entries
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers import nodes
from diffusion_jax.diffusion.samplers.core import Sampler, within
from diffusion_jax.diffusion.samplers.ode import EulerPlan, euler_plan, euler_step, finite_level
from diffusion_jax.diffusion.samplers.two_looks import check_noise, down_and_up
from diffusion_jax.diffusion.schedules import Schedule

BISECTIONS = 48  # in time, between the ends of one of the grid's intervals


class PID(NamedTuple):
    """A controller of steps: the factor of 1 / E and those of the two accepted steps before, each to its power.

    The next step is 1 + atan(factor - 1) times as long, and a step is accepted where that is at least `safety`.
    """

    p: float = 0.0
    i: float = 1.0
    d: float = 0.0
    safety: float = 0.81

    def __call__(self, good, goods, order: float):
        """How much longer the next step is, [B], of 1 / E [B] now and before, [2, B]."""
        now, one, two = (self.p + self.i + self.d) / order, -(self.p + 2 * self.d) / order, self.d / order
        return 1 + jnp.arctan(good**now * goods[0] ** one * goods[1] ** two - 1)


INTEGRAL = PID()  # k-diffusion's, of the newest error alone


class AdaptivePlan(NamedTuple):
    """From `t` to `s`; by Euler's step if it is the `last`, where s = 0. The grid's last time above 0 is `end`, and
    its level the `lowest`. Arrays [N] over a grid, scalars in a step.
    """

    t: jax.Array
    s: jax.Array
    end: jax.Array
    lowest: jax.Array
    last: jax.Array
    euler: EulerPlan


class Adapting(NamedTuple):
    """The images [B, ...], what the lower order made of them, the next step's length in log v [B], 1 / E of the last
    two steps [2, B], 0 where there was none, and who gave up [B].
    """

    x: jax.Array
    low: jax.Array
    h: jax.Array
    goods: jax.Array
    stuck: jax.Array


class Under(NamedTuple):
    """On the way from t to s: how often it was tried, and where each example stands, [B]."""

    tries: jax.Array
    t: jax.Array
    state: Adapting


def dpm_adaptive(
    schedule: Schedule,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h: float = 0.05,
    pid: PID = INTEGRAL,
    eta: float = 0.0,
    s_noise: float = 1.0,
    tries: int = 1000,
) -> Sampler:
    """k-diffusion's dpm_adaptive. `order` looks a step, and one in that to s = 0, which ends on the estimate.

    The grid says where it has to arrive, and where `film` has a picture: its first time, its last above 0, and 0 are
    enough. Not for networks that know a table of times alone. Compiled, it is a `while_loop` within the `scan`: its
    derivatives go forwards only.

    Args:
      schedule: known at every t.
      order: 2 or 3.
      rtol, atol: the error that a step may make, of the value and in itself; > 0.
      h: the first step's length in log v; > 0.
      pid: how the others' follow.
      eta: in [0, 1]. With noise a step goes down to v_d <= v_s and up again, as in `dpm_fast`.
      s_noise: multiplies the noise; >= 0.
      tries: of steps between two times of the grid. An example that has not arrived then is NaN from there on, and
        `samplers.breaking` says so.

    Raises:
      InputError: for others. The plan: unless 0 <= s < t <= 1, where alpha(t) = 0, and for a table of betas.
    """
    check_noise(eta, s_noise)
    if order not in (2, 3):
        raise InputError(f"an adaptive DPM-Solver is of order 2 or 3, not {order}")
    if not (rtol > 0 and atol > 0 and h > 0 and tries >= 1):
        raise InputError(f"rtol, atol, h and tries are above 0, not {rtol}, {atol}, {h} and {tries}")
    places, due = nodes.PLACES[order - 1], np.arange(3) < order

    def plan(t, s):
        check_interval(t, s)
        finite_level(schedule, t)
        schedule.alpha(s + (t - s) / np.pi)  # a table raises here
        last = s == 0
        end = np.full_like(t, np.append(t, s[~last]).min())
        return AdaptivePlan(t, s, end, _level(schedule, end), last, euler_plan(schedule, t, s))

    def init(x):
        one = jnp.zeros(len(x), x.dtype)
        return Adapting(x, x, one + h, jnp.zeros((2, len(x)), x.dtype), one > 0)

    def step(keys, state, plan, denoise):
        def ending():
            x = euler_step(state.x, plan.euler, denoise(state.x, plan.t).mean)
            return state._replace(x=x.astype(state.x.dtype))

        return jax.lax.cond(plan.last, ending, lambda: walk(keys, state, plan, denoise))

    def walk(keys, state, plan, denoise):
        def going(under):
            return (under.t > plan.s) & jnp.isfinite(under.state.h)

        def proceed(under):
            (x, low, h, goods, stuck), on = under.state, going(under)
            to, found, lower, error = attempt(rng.each(keys, under.tries), under, plan, denoise)
            good = 1 / (error + 1e-8)
            known = jnp.where(goods > 0, goods, good[None])
            factor = pid(good, known, 1.5 if eta else order)
            taken = on & (factor >= pid.safety)
            state = Adapting(
                jnp.where(expand(taken, x), found, x),
                jnp.where(expand(taken, x), lower, low),
                jnp.where(on, h * factor, h),
                jnp.where(taken[None], jnp.stack([good, known[0]]), jnp.where(on[None], known, goods)),
                stuck,
            )
            return like(Under(under.tries + 1, jnp.where(taken, to, under.t), state), under)

        start = Under(jnp.int32(0), jnp.broadcast_to(plan.t, state.h.shape), state)
        end = jax.lax.while_loop(lambda under: going(under).any() & (under.tries < tries), proceed, start)
        lost = jnp.where(end.t > plan.s, jnp.nan, 0.0).astype(state.h.dtype)
        x = end.state.x + expand(lost, state.x)
        return end.state._replace(x=x, stuck=state.stuck | going(end))

    def attempt(keys, under, plan, denoise):
        """One step of each example: to which time, both orders' results there, and the error E [B]."""
        (x, low, h, _, _), t = under.state, under.t
        v_t, lowest = _level(schedule, t), _level(schedule, plan.s)
        wanted = v_t * jnp.exp(-h)
        to = jnp.where(wanted > lowest, between(wanted, plan), plan.s)
        v_s = _level(schedule, to)
        v_d = jnp.maximum(down_and_up(v_t, v_s, eta)[0], plan.lowest) if eta else v_s
        found, lower = solve(x, t, v_t, v_d, to, plan, denoise)
        allowed = jnp.maximum(atol, rtol * jnp.maximum(jnp.abs(lower), jnp.abs(low)))
        error = jnp.sqrt(mean_over_entries(((found - lower) / allowed) ** 2))
        if eta:
            up = schedule.alpha(to) * jnp.sqrt(jnp.maximum(v_s**2 - v_d**2, 0.0))
            found = found + s_noise * expand(up, x) * rng.normal_like(keys, x)
        return to, found, lower, error

    def solve(x, t, v_t, v_d, to, plan, denoise):
        """Both orders' results, at v_d but with the alpha of the time `to`."""
        way = jnp.log(v_t / v_d)
        shares = jnp.broadcast_to(places[:, None], (3, len(x)))
        looks = nodes.looks(schedule, t, way, shares, due, lambda v: between(v, plan))
        seen = nodes.see(x, looks, denoise)
        alpha = schedule.alpha(to)

        def at_end(weights, last):
            first, weight = (expand(alpha * w, x) for w in weights)
            return expand(alpha / schedule.alpha(t), x) * x + first * seen[0] + weight * last

        low = nodes.constant(v_t, v_d) if order == 2 else nodes.midpoint(v_t, v_d, places[1])
        high = nodes.midpoint(v_t, v_d, 1 / 2) if order == 2 else nodes.exact(v_t, v_d, way, 2 / 3)
        return at_end(high, seen[order - 1]), at_end(low, seen[1])

    def between(v, plan):
        """The times from plan.end to plan.t at which the level is `v`, by bisection."""

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            noisier = _level(schedule, middle) > v
            return jnp.where(noisier, low, middle), jnp.where(noisier, middle, high)

        ends = (jnp.full_like(v, plan.end), jnp.full_like(v, plan.t))
        low, high = jax.lax.fori_loop(0, BISECTIONS, halve, ends)
        return (low + high) / 2

    return Sampler(
        plan, init=init, step=step, done=lambda state: state.x, stuck=lambda state: state.stuck, put=within
    )


def _level(schedule: Schedule, t):
    return schedule.sigma(t) / schedule.alpha(t)
