"""Progressive distillation (Salimans & Ho 2022): a student's one step is its teacher's two, stage after stage.

A student of N steps starts as its teacher, of 2N. It is right on its own grid alone, so its number of steps is a part
of it (`check_steps`). Each stage is a run of its own, with a new optimiser; then N halves. Teachers and students say
x0, v, or x0 and eps together (`check`).
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Denoiser, MakeLoss, OfTime, Teacher
from diffusion_jax.diffusion import time_sampling, timesteps
from diffusion_jax.diffusion.few_step import teachers
from diffusion_jax.diffusion.few_step.pairs import jump
from diffusion_jax.diffusion.parameterizations import Parameterization, gain
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.time_sampling import Times

LARGEST_GAIN = 100.0  # by which an error in what a network says may grow in its x0


class Halving(NamedTuple):
    """A student's step and the teacher's two, arrays of one shape, [B] in a loss.

    Attributes:
      t, middle, end: the times, falling.
      share: of the teacher's estimate at t in the student's target, in [0, 1).
    """

    t: Any
    middle: Any
    end: Any
    share: Any


def grid(steps: int) -> np.ndarray:
    """The times N / N, ..., 1 / N, 0 of a student of N steps, [N + 1]; its teacher's are `grid(2 * steps)`."""
    return timesteps.linear(steps)


def halvings(schedule: Schedule, times: ArrayLike) -> Halving:
    """The N steps of a student on every other time of its teacher's grid, float64 [N] each.

    With nu = alpha / sigma at t, the middle and the end, the share is (nu' - nu) / (nu'' - nu): then the student's
    target is the x0 whose single DDIM step from t ends where the teacher's two do. A step to 0 has share 0.

    Args:
      schedule: of the process.
      times: the teacher's grid, [2N + 1]: falling to 0, or to the lowest level that is known.

    Raises:
      InputError: for a grid that does not fall, or of an odd number of steps.
    """
    times = timesteps.check_grid(times)
    if len(times) % 2 == 0:
        raise InputError(f"a teacher of {len(times) - 1} steps cannot be halved: give a grid of an even number")
    t, middle, end = times[:-1:2], times[1::2], times[2::2]
    with np.errstate(divide="ignore"):
        nu, between, last = (schedule.alpha(s) / schedule.sigma(s) for s in (t, middle, end))
    return Halving(t, middle, end, (between - nu) / (last - nu))


def steps(schedule: Schedule, times: ArrayLike) -> Times:
    """A student's steps, drawn uniformly; arguments and errors as of `halvings`."""
    table = jax.tree.map(np.float32, halvings(schedule, times))
    num = len(table.t)

    def law(u):
        index = jnp.minimum(jnp.floor(u * num).astype(jnp.int32), num - 1)
        return jax.tree.map(lambda each: jnp.asarray(each)[index], table)

    return time_sampling.independent(law)


def target(schedule: Schedule, denoise: Denoiser, x_t: jax.Array, step: Halving) -> jax.Array:
    """The student's x0 [B, ...] at x_t: of the teacher's estimates at t and, one DDIM step on, at the middle.

    Salimans & Ho 2022, algorithm 2, equation 13, as the convex mix that it is: its quotient of small differences
    would lose 3e-4 in float32 at 1024 steps.
    """
    first = denoise(x_t, step.t).mean
    second = denoise(jump(schedule, x_t, first, step.t, step.middle), step.middle).mean
    share = expand(step.share, x_t)
    return share * first + (1 - share) * second


def distillation(schedule: Schedule, times: ArrayLike, teacher: Teacher, weight: OfTime) -> MakeLoss:
    """The loss of a student, as `Method.loss` takes it; `context.t` is a `Halving` (`steps`).

    Args:
      schedule: of the process.
      times: the teacher's grid, as of `steps`.
      teacher: `(context, *cond) -> Denoiser` (`teachers.held`); not clipped.
      weight: of the squared error in x0, at t: `losses.truncated_snr` or `losses.of_v`.

    Raises:
      InputError: when the loss is made, as of `check`.
    """

    def wanted(x_t, context, *cond):
        return target(schedule, teacher(context, *cond), x_t, context.t)

    make = teachers.toward(wanted, weight, lambda step: step.t)

    def checked(apply, parameterization, process):
        check(parameterization, schedule, times)
        return make(apply, parameterization, process)

    return checked


def check(parameterization: Parameterization, schedule: Schedule, times: ArrayLike, who: str = "student"):
    """`InputError` where `who`, a network that says eps for instance, says little of x0 at the grid's start.

    Where alpha is small an error in eps grows by sigma / alpha in x0, and a chain of few steps cannot mend it.
    """
    t = float(timesteps.check_grid(times)[0])
    grown = gain(parameterization, schedule, t)
    if grown > LARGEST_GAIN:
        grows = f"{grown:.3g} times as large" if np.isfinite(grown) else "infinite"
        raise InputError(
            f"the {who} cannot be distilled: an error in what it says, such as eps, is {grows} in x0 at t = {t:g}; "
            "take a network that says x0, v, or x0 and eps together"
        )


def check_steps(asked: int | None, known: Collection[int]) -> int:
    """The number of steps that a distilled network is walked in: the one asked for, the fewest known by default.

    Raises:
      InputError: it was not distilled for that many.
    """
    if asked is None:
        return min(known)
    if asked not in known:
        numbers = ", ".join(map(str, sorted(known)))
        raise InputError(f"this network is distilled for {numbers} steps, and wrong in {asked}; take one it knows")
    return asked
