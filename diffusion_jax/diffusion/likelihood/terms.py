"""The variational bound of Gaussian diffusion, term by term (DDPM, section 2 and appendix).

-log p(x0) <= L_T + sum_{t > 1} L_{t-1} + L_0. All terms are given for each entry, in nats, so that callers
choose how to average; `bits` converts.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from diffusion_jax.core.arrays import expand, namespace
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Time
from diffusion_jax.diffusion.gaussian import q_posterior
from diffusion_jax.diffusion.schedules import Schedule


def prior_term(schedule: Schedule, x0: jax.Array, t: Time = 1.0) -> jax.Array:
    """L_T = KL(q(x_t | x0) || p(x_1)) of each entry, in nats, for a chain that starts at `t`.

    p(x_1) = N(0, alpha_1^2 + sigma_1^2), as `processes.gaussian` draws it: N(0, 1) for variance-preserving schedules.
    """
    xp = namespace(t)
    prior = np.hypot(schedule.alpha(1.0), schedule.sigma(1.0)) ** 2
    # Of numbers alone, in float64: near t = 1 the ratio is 1 but for a few times 1e-5.
    ratio = schedule.sigma(t) ** 2 / prior
    spread = 0.5 * (ratio - 1 - xp.log(ratio))
    return expand(0.5 * schedule.alpha(t) ** 2 / prior, x0) * x0**2 + expand(spread, x0)


def transition_term(
    schedule: Schedule, x0: jax.Array, x_t: jax.Array, kernel: Gaussian, t: Time, s: Time
) -> jax.Array:
    """L_s = KL(q(x_s | x_t, x0) || p(x_s | x_t)) of each entry, in nats; s > 0, `kernel` with var > 0."""
    return q_posterior(schedule, x0, x_t, t, s).kl(kernel)


def decoder_term(kernel: Gaussian, x0: jax.Array, half_bin: float = 1 / 255, floor: float = 1e-12) -> jax.Array:
    """L_0 = -log p(x0 | x_1) of each entry, in nats, for images of 256 levels in [-1, 1] (DDPM equation 13).

    The normal `kernel` is integrated over the level's bin x0 +- half_bin; the bins at the two ends are open.
    K levels have half_bin = 1 / (K - 1). `floor` bounds the mass from below, as in the official code.
    """
    std = jnp.sqrt(kernel.var)
    above = (x0 + half_bin - kernel.mean) / std
    below = (x0 - half_bin - kernel.mean) / std
    upper = jnp.where(x0 > 0.999, jnp.inf, above)
    lower = jnp.where(x0 < -0.999, -jnp.inf, below)
    # Far out on the right both are 1 to rounding: integrate the mirrored tail instead, where both are small.
    mirrored = lower + upper > 0
    mass = jnp.where(mirrored, ndtr(-lower) - ndtr(-upper), ndtr(upper) - ndtr(lower))
    return -jnp.log(jnp.maximum(mass, floor))


def density_term(kernel: Gaussian, x0: jax.Array) -> jax.Array:
    """-log of the density p(x0 | x_1) of each entry, in nats: the decoder of data without levels; var > 0."""
    return -kernel.log_prob(x0)


def bits(nats: jax.Array) -> jax.Array:
    """Nats to bits."""
    return nats / np.log(2)


def check_levels(x0: Any, half_bin: float = 1 / 255):
    """Raise `InputError` unless every entry of `x0` (NumPy) is one of the levels -1, -1 + 2 half_bin, ..., 1.

    Bits per dimension mean something for such data only: what was resized, averaged or scaled otherwise is none.
    """
    position = (np.asarray(x0, np.float64) + 1) / (2 * half_bin)
    level, count = np.rint(position), round(1 / half_bin)
    bad = ~((np.abs(position - level) < 0.01) & (level >= 0) & (level <= count))
    if bad.any():
        value = np.asarray(x0)[bad][0]
        raise InputError(
            f"{value:g} is none of the {count + 1} levels in [-1, 1]: take integers 0, ..., {count} and divide by "
            f"{count / 2:g}, less 1 (images.to_float for 256)"
        )
