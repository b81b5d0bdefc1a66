"""How much of x0 is still unknown: transforms of a denoiser that fill in the estimate's variance.

The posterior bridge adds this uncertainty to its own variance (`processes.gaussian`). Each choice is a
function of the schedule that returns a transform `Denoiser -> Denoiser`. A learned variance is no transform but a
parameterisation: `parameterizations.learned_range`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Gaussian, mean_over_entries
from diffusion_jax.core.protocols import Denoiser, Transform
from diffusion_jax.diffusion.gaussian import eps_from_x0
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.schedules import Schedule


def no_less(narrowest: float) -> Transform:
    """The transform that lets a learned variance (`parameterizations.learned_range`) be as thin as `narrowest`.

    What a network learned is a fraction, of the way from there to the widest; a chain of fewer steps has another end.
    """

    def transform(denoise):
        return lambda x_t, t: denoise(x_t, t)._replace(narrowest=narrowest)

    return transform


def fixed_large(schedule: Schedule) -> Transform:
    """Var[x0 | x_t] = sigma_t^2: the kernel's variance becomes beta_t, optimal for data x0 ~ N(0, I).

    DDPM section 3.2, first choice, at any stride: with a variance-preserving schedule the kernel from t to s
    has variance 1 - (alpha_t / alpha_s)^2.
    """

    def transform(denoise):
        def denoise_with_variance(x_t, t):
            return denoise(x_t, t)._replace(var=expand(schedule.sigma(t), x_t) ** 2)

        return denoise_with_variance

    return transform


def posterior(schedule: Schedule) -> Transform:
    """Var[x0 | x_t] = 0: the kernel keeps the posterior variance beta-tilde.

    DDPM section 3.2, second choice, "fixed small", optimal for data that is a single point. Plain estimates have no
    variance anyway; a learned one is left out, which DDIM takes: its steps have no noise but what eta says.
    """
    del schedule
    return lambda denoise: lambda x_t, t: Gaussian(denoise(x_t, t).mean)


def analytic(schedule: Schedule, times: ArrayLike, power: ArrayLike) -> Transform:
    """Var[x0 | x_t] = (sigma / alpha)^2 (1 - E|eps_hat|^2 / d): the optimal variance that is one number a time.

    (Analytic-DPM, Bao et al. 2022, theorem 1.) It costs no training, only `power`. Data in [-1, 1] has a
    variance of at most 1, and the estimate is kept below that (their theorem 2); the schedule's alpha > 0.

    Args:
      schedule: the process's.
      times: the sampling grid, [N + 1]; times of the chain are looked up in it.
      power: mean squared predicted noise at its first N times, as `eps_power` measures it; [N].
    """
    times = np.asarray(times, np.float64)[:-1]
    level = schedule.sigma(times) / schedule.alpha(times)
    table = np.clip(level**2 * (1 - np.asarray(power, np.float64)), 0.0, 1.0)

    def transform(denoise):
        def denoise_with_variance(x_t, t):
            # float32 on both sides: the chain's t is one of these, rounded alike.
            at = jnp.argmin(jnp.abs(jnp.asarray(times) - jnp.asarray(t)[..., None]), axis=-1)
            return denoise(x_t, t)._replace(var=expand(jnp.asarray(table)[at], x_t))

        return denoise_with_variance

    return transform


def eps_power(
    denoise: Denoiser, schedule: Schedule, process: Process, times: np.ndarray, x0: jax.Array, keys: jax.Array
) -> jax.Array:
    """E|eps_hat|^2 / d at each of the grid's first N times, [N]; an average over data.

    Args:
      denoise: the denoiser whose variance is wanted, transforms of its mean included.
      schedule: the process's.
      process: corrupts x0.
      times: the sampling grid, [N + 1].
      x0: data [B, ...]; the error of the average falls with 1 / sqrt(B d).
      keys: one key an example, [B].
    """

    def at(_, t):
        x_t, _ = jax.vmap(process.corrupt, (0, 0, None))(rng.each(keys, t[1]), x0, t[0])
        eps = eps_from_x0(schedule, x_t, denoise(x_t, t[0]).mean, t[0])
        return None, mean_over_entries(eps**2).mean()

    grid = jnp.asarray(times[:-1]), jnp.arange(len(times) - 1)
    return jax.lax.scan(at, None, grid)[1]
