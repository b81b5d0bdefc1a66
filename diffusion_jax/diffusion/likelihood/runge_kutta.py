"""Explicit Runge-Kutta methods, as tables of numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class RungeKutta(NamedTuple):
    """An explicit Runge-Kutta method: stage i at `nodes[i]` of a step, from slopes weighted by `stages[i]`.

    Attributes:
      nodes, stages, weights: [S], [S, S], [S].
      order: of its error in the length of steps.
    """

    nodes: tuple
    stages: tuple
    weights: tuple
    order: int


# Second order, two evaluations a step, at the times of the grid alone: for tables of betas.
HEUN = RungeKutta((0.0, 1.0), ((0.0, 0.0), (1.0, 0.0)), (0.5, 0.5), 2)
# Fourth order, four evaluations a step, two of them between the grid's times.
RK4 = RungeKutta(
    (0.0, 0.5, 0.5, 1.0),
    ((0, 0, 0, 0), (0.5, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 1.0, 0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    4,
)


class Pair(NamedTuple):
    """Two explicit Runge-Kutta methods with the same slopes, whose difference tells the error of a step.

    The last stage lies at the end of the step and is the first of the next ("first same as last").

    Attributes:
      nodes, stages: [S], [S, S], as of `RungeKutta`; the last row of `stages` is the weights of the result.
      spare: [S], these weights less those of the other method.
      order: of the error of a step as `spare` tells it, in its length.
    """

    nodes: tuple
    stages: tuple
    spare: tuple
    order: int


# Fifth order and fourth, six new evaluations a step (Dormand & Prince 1980, RK5(4)7M).
DOPRI5 = Pair(
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (0, 0, 0, 0, 0, 0, 0),
        (1 / 5, 0, 0, 0, 0, 0, 0),
        (3 / 40, 9 / 40, 0, 0, 0, 0, 0),
        (44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    ),
    (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    5,
)


def said_error(quarter: jax.Array, half: jax.Array, whole: jax.Array, order: int) -> jax.Array:
    """The error of `whole`, from results in half and a quarter of its steps; arrays of one shape.

    |whole - half| over what the next halving is seen to gain: at most 2^order, the asymptotic law (Richardson), and
    at least 2, so a grid too coarse for its order, or an integrand with noise, is not flattered.
    """
    last, before = jnp.abs(whole - half), jnp.abs(half - quarter)
    gain = jnp.clip(before / jnp.maximum(last, jnp.finfo(last.dtype).tiny), 2.0, 2.0**order)
    return last / (gain - 1)
