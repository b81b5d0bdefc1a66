"""DPM-Solver-1, -2 and -3: a step looks up to three times, at nodes of its own, equally spaced in log v.

In y = x / alpha and v = sigma / alpha the probability-flow ODE is dy / dv = eps, the noise that the estimate leaves
in x_t (Lu et al. 2022, "DPM-Solver", proposition 3.1 and algorithms 1 and 2). A step from v_t down to v = v_t e^-h is

    y_s = y + first eps_first + last eps_last,

the first look and the last one, which was at the share r of the way in log v: eps is laid on a straight line through
both. A look on the way is such a step too, from the same start to where it looks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import expand, namespace
from diffusion_jax.core.protocols import Denoiser, Time
from diffusion_jax.diffusion.samplers.multistep import read_noise
from diffusion_jax.diffusion.schedules import Schedule

# Where a solver of the order 1, 2 or 3 looks, in shares of its step; where it does not, 0.
PLACES = np.array([[0, 0, 0], [0, 1 / 2, 0], [0, 1 / 3, 2 / 3]])


class Looks(NamedTuple):
    """The looks of a step, K of them, in order. Each, if it is `due`, sees e = read_x u + read_x0 D(u, tau) from
    u = x x_t + first e_first + last e_last, by what the first look and the one before saw.

    Arrays [K] or [K, B].
    """

    due: jax.Array
    tau: jax.Array
    x: jax.Array
    first: jax.Array
    last: jax.Array
    read_x: jax.Array
    read_x0: jax.Array


def see(x: jax.Array, looks: Looks, denoise: Denoiser) -> jax.Array:
    """What each look saw, [K, B, ...]; one that is not due repeats the one before."""

    def look(before, at):
        begins, at = at
        first, last = before

        def seen():
            there = expand(at.x, x) * x + expand(at.first, x) * first + expand(at.last, x) * last
            reached = expand(at.read_x, x) * there + expand(at.read_x0, x) * denoise(there, at.tau).mean
            return reached.astype(x.dtype)

        now = jax.lax.cond(at.due, seen, lambda: last)
        return (jnp.where(begins, now, first), now), now

    begins = jnp.arange(len(looks.due)) == 0
    return jax.lax.scan(look, (jnp.zeros_like(x), jnp.zeros_like(x)), (begins, looks))[1]


def looks(
    schedule: Schedule, t: Time, h: Any, places: np.ndarray, due: Any, at_level: Callable[[Any], Time]
) -> Looks:
    """The looks of steps that start at `t` and go down by `h` in log v: arrays [3, ...].

    Args:
      schedule: known at every t.
      t, h: [...], NumPy or JAX; h > 0 where more than one look is due.
      places: [3, ...], columns of `PLACES`.
      due: bool [3, ...].
      at_level: `v -> t`.
    """
    xp = namespace(t)
    v_t, way = schedule.sigma(t) / schedule.alpha(t), places * h[None]
    tau = xp.where(way > 0, at_level(v_t[None] * xp.exp(-way)), t[None])
    alpha = schedule.alpha(tau)
    v = schedule.sigma(tau) / alpha
    # Where it looks first it is; the third look's line goes through the second, which is half-way to it.
    lines = constant(v_t, v[0]), constant(v_t, v[1]), exact(v_t, v[2], way[2], 1 / 2)
    first, last = map(xp.stack, zip(*lines, strict=True))
    return Looks(due, tau, alpha / schedule.alpha(t)[None], alpha * first, alpha * last, *read_noise(schedule, tau))


def constant(v_t: Any, v: Any) -> tuple[Any, Any]:
    """(first, last) where the first look alone counts: first order."""
    return v - v_t, namespace(v).zeros_like(v)


def midpoint(v_t: Any, v: Any, r: Any) -> tuple[Any, Any]:
    """(first, last): the middle of the line stands for all of it. How a step of second order ends."""
    last = (v - v_t) / (2 * r)
    return v - v_t - last, last


def exact(v_t: Any, v: Any, h: Any, r: Any) -> tuple[Any, Any]:
    """(first, last): the line's own integral."""
    xp = namespace(v)
    moved = h > 0
    last = -v * xp.where(moved, xp.expm1(h) / xp.where(moved, h, 1.0) - 1, 0.0) / r
    return v - v_t - last, last
