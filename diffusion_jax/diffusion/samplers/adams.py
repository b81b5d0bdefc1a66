"""Adams and Bashforth's methods on unequal steps: LMS and DEIS.

In y = x / alpha and v = sigma / alpha the probability-flow ODE is dy / dv = eps, the noise that the estimate leaves
in x_t. Its integral over a step is taken of the polynomial through what the last K looks saw,

    x_s = alpha_s (x_t / alpha_t + sum_j w_j eps_j),     w_j = int_{v_t}^{v_s} L_j dv,

L_j being Lagrange's. LMS (Katherine Crowson's k-diffusion, after Liu et al. 2022) lays it through v, DEIS (Zhang &
Chen 2023, "Fast Sampling of Diffusion Models with Exponential Integrator", in its form log rho) through log v.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_jax.core.protocols import Orders
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.multistep import (
    MultistepPlan,
    at_most,
    attainable,
    before,
    multistep,
    read_noise,
)
from diffusion_jax.diffusion.samplers.ode import finite_level
from diffusion_jax.diffusion.schedules import Schedule

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(24)


def lms(schedule: Schedule, order: int = 4) -> Sampler:
    """Linear multistep: the polynomial is one in v. Deterministic, of `order` (1 to 4) where the grid is smooth in v.

    The first steps have as high an order as there are memories for, and so the error of the first, Euler's, stays.
    The plan raises `InputError` unless 0 <= s < t <= 1, and where alpha(t) = 0.
    """

    def weights(v_t, v_s, nodes, orders):
        return _integrals(nodes, v_t, v_s, lambda v: 1.0, orders)

    return _adams(schedule, at_most(order), order, weights)


def deis(schedule: Schedule, orders: Orders) -> Sampler:
    """DEIS: the polynomial is one in log v. Deterministic; a step to s = 0 is of first order, and ends on D.

    Args:
      schedule: alpha and sigma.
      orders: `N -> orders [N]` of the N steps, 1 to 3 (`at_most`).

    Raises:
      InputError: by the plan, unless 0 <= s < t <= 1, and where alpha(t) = 0.
    """

    def weights(v_t, v_s, nodes, orders):
        low = np.where(v_s > 0, v_s, v_t)
        found = _integrals(np.log(nodes), np.log(v_t), np.log(low), np.exp, orders)
        return np.where((v_s > 0)[:, None], found, (v_s - v_t)[:, None] * np.eye(nodes.shape[1])[0])

    return _adams(schedule, orders, 3, weights)


def _adams(
    schedule: Schedule,
    orders: Orders,
    most: int,
    weights: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Sampler:
    def plan(t, s):
        check_interval(t, s)
        v_t, v_s, alpha_s = finite_level(schedule, t), schedule.sigma(s) / schedule.alpha(s), schedule.alpha(s)
        nodes = np.stack([before(v_t, n, 1.0) for n in range(most)], axis=1)
        order = attainable(v_t, orders(len(t)))
        found = alpha_s[:, None] * weights(v_t, v_s, nodes, order)
        return MultistepPlan(t, *read_noise(schedule, t), alpha_s / schedule.alpha(t), found)

    return multistep(plan, most - 1)


def _integrals(nodes, start, end, measure: Callable[[np.ndarray], Any], orders) -> np.ndarray:
    """int_start^end L_j(u) measure(u) du of the first `orders` [N] of the nodes [N, K]; [N, K], 0 for the others."""
    middle, half = (start + end) / 2, (end - start) / 2
    u = middle[:, None] + half[:, None] * POINTS
    rule = half[:, None] * WEIGHTS * measure(u)
    number = np.arange(nodes.shape[1])
    used = number < orders[:, None]
    columns = []
    for j in number:
        polynomial = np.ones_like(u)
        for k in number[number != j]:
            gap = np.where(used[:, k], nodes[:, j] - nodes[:, k], 1.0)
            gap = np.where(gap == 0, 1.0, gap)  # of a node that is not used
            factor = (u - nodes[:, k : k + 1]) / gap[:, None]
            polynomial *= np.where(used[:, k : k + 1], factor, 1.0)
        columns.append(np.where(used[:, j], (polynomial * rule).sum(axis=1), 0.0))
    return np.stack(columns, axis=1)
