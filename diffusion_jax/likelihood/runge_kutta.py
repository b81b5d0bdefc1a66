"""Explicit Runge-Kutta methods, as tables of numbers."""

from typing import NamedTuple

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
    order: int = 1


# Second order, two evaluations a step, at the times of the grid alone: for tables of betas.
HEUN = RungeKutta((0.0, 1.0), ((0.0, 0.0), (1.0, 0.0)), (0.5, 0.5), 2)
# Fourth order, four evaluations a step, two of them between the grid's times.
RK4 = RungeKutta(
    (0.0, 0.5, 0.5, 1.0),
    ((0, 0, 0, 0), (0.5, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 1.0, 0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    4,
)


def said_error(quarter, half, whole, order: int):
    """The error of `whole`, from results in half and a quarter of its steps; arrays of one shape.

    |whole - half| over what the next halving is seen to gain: at most 2^order, the asymptotic law (Richardson), and
    at least 2, so a grid too coarse for its order, or an integrand with noise, is not flattered.
    """
    last, before = jnp.abs(whole - half), jnp.abs(half - quarter)
    gain = jnp.clip(before / jnp.maximum(last, jnp.finfo(last.dtype).tiny), 2.0, 2.0**order)
    return last / (gain - 1)
