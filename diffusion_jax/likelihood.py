"""The variational bound of Gaussian diffusion, term by term (DDPM, section 2 and appendix).

-log p(x0) <= L_T + sum_{t > 1} L_{t-1} + L_0. All terms are given for each entry, in nats, so that callers
choose how to average; `bits` converts.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from diffusion_jax.distributions import Gaussian
from diffusion_jax.gaussian import q_marginal, q_posterior
from diffusion_jax.schedules import Schedule


def prior_term(schedule: Schedule, x0):
    """L_T = KL(q(x_1 | x0) || N(0, I)) of each entry, in nats."""
    return q_marginal(schedule, x0, 1.0).kl(Gaussian(0.0, 1.0))


def transition_term(schedule: Schedule, x0, x_t, kernel: Gaussian, t, s):
    """L_s = KL(q(x_s | x_t, x0) || p(x_s | x_t)) of each entry, in nats; s > 0, `kernel` with var > 0."""
    return q_posterior(schedule, x0, x_t, t, s).kl(kernel)


def decoder_term(kernel: Gaussian, x0, half_bin: float = 1 / 255, floor: float = 1e-12):
    """L_0 = -log p(x0 | x_1) of each entry, in nats, for images of 256 levels in [-1, 1] (DDPM equation 13).

    The normal `kernel` is integrated over the level's bin x0 +- half_bin; the bins at the two ends are open.
    `floor` bounds the mass from below, as in the official code.
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


def bits(nats: jax.Array) -> jax.Array:
    """Nats to bits."""
    return nats / np.log(2)
