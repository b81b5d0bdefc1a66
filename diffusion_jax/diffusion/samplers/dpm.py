"""DPM-Solver and DPM-Solver++: solvers in log-SNR that remember the steps before, and cost one look a step.

With lambda = log(alpha / sigma) and h its increase over a step, the reverse diffusion has the exact solutions

    x_s = (sigma_s / sigma_t) e^{-eta h} x_t + alpha_s int_0^k e^{u - k} D du + sigma_s sqrt(1 - e^{-2 eta h}) z,
    x_s = (alpha_s / alpha_t) x_t - (1 + eta) sigma_s int_0^h e^{h - u} eps du + sigma_s sqrt(e^{2 eta h} - 1) z,

k = (1 + eta) h, at lambda_t + u: of the probability-flow ODE for eta = 0 and of the reverse SDE for eta = 1 (Lu et
al. 2022, "DPM-Solver++", propositions 4.1 and 5.1; "DPM-Solver", proposition 3.1). D, or eps, is what the steps
before say of it (with r_1 = h_1 / h and r_2 = h_2 / h their lengths):

    D_t + D' u / h + D'' (u / h)^2,     D' = (D_t - D_1) / r_1                        (second order),
    D'' = (D' - (D_1 - D_2) / r_2) / (r_1 + r_2),     D' <- D' + r_1 D''              (third order).

Their integrals are the weights below.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Orders
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.multistep import MultistepPlan, at_most, before, multistep, read_noise, read_x0
from diffusion_jax.diffusion.samplers.ode import finite_level
from diffusion_jax.diffusion.schedules import Schedule


class Terms(NamedTuple):
    """x_s = x x_t + level D_t + slope D' + bend D'' + noise z; arrays [N]."""

    x: np.ndarray
    level: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    noise: np.ndarray | None


class Form(NamedTuple):
    """An exact solution.

    Attributes:
      read: `(schedule, t)`, what is remembered.
      terms: `(schedule, t, s, h) -> Terms`.
      sign: the integral grows with e^(sign h): -1 of D, 1 of eps.
    """

    read: Callable[[Schedule, np.ndarray], tuple[np.ndarray, np.ndarray]]
    terms: Callable[[Schedule, np.ndarray, np.ndarray, np.ndarray], Terms]
    sign: float


def data(eta: float = 0.0, s_noise: float = 1.0) -> Form:
    """DPM-Solver++: D is remembered. eta = 0 is the ODE, 1 the SDE; `s_noise` multiplies the noise; both >= 0."""
    if not (eta >= 0 and s_noise >= 0):
        raise InputError(f"eta and s_noise must be at least 0, not {eta} and {s_noise}")

    def terms(schedule: Schedule, t, s, h):
        alpha_s, sigma_s, k = schedule.alpha(s), schedule.sigma(s), (1 + eta) * h
        gone = -np.expm1(-k)
        fresh = np.sqrt(-np.expm1(-2 * eta * h)) if eta else np.zeros_like(h)
        with np.errstate(invalid="ignore"):  # where h is infinite only the first two are of use
            slope, bend = 1 - gone / k, 1 - 2 * (k - gone) / k**2
        kept = np.exp(-eta * h) if eta else np.ones_like(h)
        x = kept * sigma_s / schedule.sigma(t)
        noise = s_noise * sigma_s * fresh if eta else None
        return Terms(x, alpha_s * gone, alpha_s * slope, alpha_s * bend, noise)

    return Form(read_x0, terms, -1.0)


def _of_noise(schedule: Schedule, t, s, h) -> Terms:
    """sigma_s (e^h - 1) is written as alpha_s v_t - sigma_s, v = sigma / alpha, which is finite at s = 0."""
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    grown = alpha_s * finite_level(schedule, t) - sigma_s
    with np.errstate(invalid="ignore"):
        slope, bend = grown / h - sigma_s, 2 * (grown - sigma_s * h) / h**2 - sigma_s
    return Terms(alpha_s / schedule.alpha(t), -grown, -slope, -bend, None)


def _of_noise_sde(schedule: Schedule, t, s, h) -> Terms:
    """To s = 0, where noise would stay, it is the ODE's step: the chain ends on the estimate."""
    terms, twice = _of_noise(schedule, t, s, h), np.where(s > 0, 2.0, 1.0)
    # sigma_s sqrt(e^2h - 1)
    fresh = np.sqrt((schedule.alpha(s) * finite_level(schedule, t)) ** 2 - schedule.sigma(s) ** 2)
    now, slope, bend = (twice * term for term in terms[1:4])
    return Terms(terms.x, now, slope, bend, np.where(s > 0, fresh, 0.0))


NOISE = Form(read_noise, _of_noise, 1.0)  # DPM-Solver: eps is remembered
NOISE_SDE = Form(read_noise, _of_noise_sde, 1.0)


def midpoint(terms: Terms) -> np.ndarray:
    """What multiplies D' in a step of second order: D at the step's middle stands before the whole integral."""
    return terms.level / 2


def exact(terms: Terms) -> np.ndarray:
    """What multiplies D' in a step of second order: its own integral ("heun" in published code)."""
    return terms.slope


def dpm_multistep(
    schedule: Schedule,
    form: Form,
    orders: Orders,
    second: Callable[[Terms], np.ndarray] = midpoint,
    curvature: float = 1.0,
) -> Sampler:
    """DPM-Solver's multistep family (Lu et al. 2022, "DPM-Solver++", algorithm 2 and its like of orders 1 and 3).

    The first step, and every step that begins or ends where lambda is infinite (t = 1 where alpha = 0; s = 0), is of
    first order, DDIM's for the ODE. The step to s = 0 returns the estimate.

    Args:
      schedule: alpha and sigma.
      form: `data(eta)`, `NOISE` or `NOISE_SDE`.
      orders: `N -> orders [N]` of the N steps, 1 to 3, each at most one more than the one before (`at_most`).
      second: of steps of second order, `midpoint` or `exact`.
      curvature: multiplies D''. Published code, diffusers' and k-diffusion's "third-order" solvers, has 0.5, and is
        of second order, as measured; 1 is of third.

    Raises:
      InputError: by the plan, unless 0 <= s < t <= 1; for eps that is remembered where alpha(t) = 0.
    """

    def plan(t, s):
        check_interval(t, s)
        with np.errstate(divide="ignore"):
            h = -np.log(left(schedule, t, s))
        order = np.where(np.isfinite(h), orders(len(t)), 1)
        terms = form.terms(schedule, t, s, h)
        weights = _weights(terms, h, order, second, curvature)
        return MultistepPlan(t, *form.read(schedule, t), terms.x, weights, terms.noise)

    return multistep(plan, memories=2)


def _weights(terms: Terms, h, order, second: Callable[[Terms], np.ndarray], curvature: float) -> np.ndarray:
    """Of D_t, D_1 and D_2: [N, 3]."""
    now, one, two = np.eye(3)
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse = [(h / before(h, n, np.inf))[:, None] for n in (1, 2)]  # 1 / r, 0 after an infinite step
        ratio = [np.where(i > 0, 1 / i, np.inf) for i in inverse]
        first = inverse[0] * (now - one)
        # first - (D_1 - D_2) / r_2, over r_1 + r_2
        change = np.nan_to_num((first - inverse[1] * (one - two)) / (ratio[0] + ratio[1]))
        lean = np.nan_to_num(ratio[0] * change)
        of_second = first * second(terms)[:, None]
        of_third = (first + lean) * terms.slope[:, None] + curvature * change * terms.bend[:, None]
    more = np.select([order[:, None] >= 3, order[:, None] == 2], [of_third, of_second], 0.0)
    return terms.level[:, None] * now + more


def dpmpp_2m(schedule: Schedule) -> Sampler:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): deterministic, second order. Errors as of `dpm_multistep`."""
    return dpm_multistep(schedule, data(), at_most(2))


def dpmpp_2m_sde(
    schedule: Schedule, eta: float = 1.0, s_noise: float = 1.0, second: Callable[[Terms], np.ndarray] = midpoint
) -> Sampler:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022): the same for the reverse SDE, or with `eta` of its noise.

    Without memory it is DDPM's posterior, step for step. Errors as of `dpm_multistep`, and eta or s_noise below 0.
    """
    return dpm_multistep(schedule, data(eta, s_noise), at_most(2), second)


def dpmpp_3m_sde(schedule: Schedule, eta: float = 1.0, s_noise: float = 1.0, curvature: float = 0.5) -> Sampler:
    """k-diffusion's solver with three memories; `curvature` = 1 makes it of third order where eta = 0.

    Errors as of `dpmpp_2m_sde`.
    """
    return dpm_multistep(schedule, data(eta, s_noise), at_most(3), exact, curvature)


def left(schedule: Schedule, t: np.ndarray, s: np.ndarray) -> np.ndarray:
    """e^-h = (alpha_t / sigma_t) / (alpha_s / sigma_s), finite at both ends: [N], in [0, 1)."""
    return schedule.alpha(t) * schedule.sigma(s) / (schedule.alpha(s) * schedule.sigma(t))
