"""DDIM inversion: from an image to the noise that DDIM would draw it from."""

import jax
from numpy.typing import ArrayLike

from diffusion_jax.core.protocols import Denoiser
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.timesteps import check_grid


def invert(schedule: Schedule, times: ArrayLike, denoise: Denoiser, x: jax.Array, iterations: int = 1) -> jax.Array:
    """The images [B, ...] at times[0] from which `euler`, DDIM with eta = 0, walks down to `x` at times[-1].

    A step of DDIM from t to s is undone by the x_t that solves

        x_t = (alpha_t / alpha_s) (x_s - sigma_s eps) + sigma_t eps,    eps = (x_t - alpha_t D(x_t, t)) / sigma_t,

    by iteration from x_t = x_s. One iteration is the usual inversion (Mokady et al. 2023), first order in the
    step; more come closer to the exact inverse, where the iteration contracts. Nothing is drawn. times[-1] may be 0.

    Args:
      schedule: the process's.
      times: the grid that the sampler walks down, [N + 1]. `InputError` if it does not fall.
      denoise: `(x_t [B, ...], t) -> Estimate`.
      x: the images at times[-1], [B, ...].
      iterations: network evaluations a step, >= 1.
    """
    rising = check_grid(times)[::-1]
    s, t = rising[:-1], rising[1:]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    keep = alpha / schedule.alpha(s)
    plan = t, alpha, 1 / sigma, keep, sigma - keep * schedule.sigma(s)

    def body(x_s, step):
        t, alpha, inverse_sigma, keep, toward_eps = step

        def refine(_, x_t):
            eps = inverse_sigma * (x_t - alpha * denoise(x_t, t).mean)
            return keep * x_s + toward_eps * eps

        return jax.lax.fori_loop(0, iterations, refine, x_s), None

    return jax.lax.scan(body, x, plan)[0]
