"""Any degradation of images: blur, pooling, masks, snow, with or without noise on top.

    x_t = D(x0, t) + sigma_t eps,      D(x0, 0) = x0.

One step back keeps a part of what D does not explain of x_t, its residual x_t - D(x0_hat, t), and adds fresh noise:

    x_s = D(x0_hat, s) + sqrt(1 - kappa) (sigma_s / sigma_t) (x_t - D(x0_hat, t)) + sqrt(kappa) sigma_s z.

kappa = 1 is the *baseline* mode, F_s(x0_hat, fresh eps); kappa = 0 the *inverse* mode, F_s(x0_hat, F_t^-1(x0_hat,
x_t)); between them the mode is *mixed*. `D` is any function of one example and a time: a user's own is passed in.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand, namespace
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Degrade, LastPrior, OfTime
from diffusion_jax.diffusion.processes.core import Process, check_interval, from_the_end


def cold(degrade: Degrade, prior: LastPrior, keep: float = 1.0) -> Process:
    """A degradation without noise (Cold Diffusion, Bansal et al. 2022).

    keep = 1 is the paper's algorithm 2, x_t - D(x0_hat, t) + D(x0_hat, s): what the estimate gets wrong does not
    pile up (to first order), and where D is linear in t it cancels. keep = 0 is its algorithm 1, D(x0_hat, s).

    Args:
      degrade: `D(x0, t)` of one example and a scalar t in [0, 1]; D(x0, 0) = x0.
      prior: `(key, shape) -> x_1`, one fully degraded example; chains start at t = 1 (`InputError` otherwise).
      keep: share of the residual that is carried over, in [0, 1].

    The process's "noise" is zero: networks predict x0.
    """
    if not 0 <= keep <= 1:
        raise InputError(f"keep must lie in [0, 1], not {keep}")

    def corrupt(key, x0, t):
        del key
        return degrade(x0, t), jnp.zeros_like(x0)

    def bridge(t, s):
        check_interval(t, s)
        ones = namespace(t).ones_like(t)
        return Partial(Partial(_correct, degrade), t, s, keep * ones, 0.0 * ones)

    return Process(corrupt, bridge, from_the_end(prior))


def noisy(degrade: Degrade, sigma: OfTime, prior: LastPrior, refresh: float = 0.0) -> Process:
    """A degradation with noise of standard deviation `sigma(t)` > 0 on top.

    Args:
      degrade: `D(x0, t)` of one example and a scalar t in [0, 1].
      sigma: `t -> standard deviation`, on NumPy and JAX times; where a bridge starts from sigma(t) <= 0, and t is not
        traced, it raises `InputError`.
      prior: `(key, shape) -> x_1`; chains start at t = 1 (`InputError` otherwise).
      refresh: kappa, the share of fresh noise, in [0, 1].
    """
    if not 0 <= refresh <= 1:
        raise InputError(f"refresh must lie in [0, 1], not {refresh}")

    def corrupt(key, x0, t):
        eps = rng.flat(jax.random.normal, key, x0.shape, x0.dtype)
        return degrade(x0, t) + sigma(t) * eps, eps

    def bridge(t, s):
        check_interval(t, s)
        _check_noise(sigma(t), t)
        carry = (1 - refresh) ** 0.5 * sigma(s) / sigma(t)
        return Partial(Partial(_correct, degrade), t, s, carry, refresh * sigma(s) ** 2)

    return Process(corrupt, bridge, from_the_end(prior))


def _check_noise(sigma_t, t):
    if namespace(sigma_t) is np and namespace(t) is np:
        sigma_t, t = np.broadcast_arrays(sigma_t, t)
        bad = ~(sigma_t > 0)
        if bad.any():
            raise InputError(
                f"a step back divides by the noise, but sigma({t[bad][0]:g}) = {sigma_t[bad][0]:g}; "
                "give it noise at every t > 0, or take `cold`"
            )


def _correct(degrade, t, s, carry, var, estimate, x_t) -> Gaussian:
    def degraded(at):
        return jax.vmap(degrade)(estimate.mean, jnp.broadcast_to(at, x_t.shape[:1]))

    mean = degraded(s) + expand(carry, x_t) * (x_t - degraded(t))
    return Gaussian(mean, jnp.broadcast_to(expand(var, x_t), mean.shape))
