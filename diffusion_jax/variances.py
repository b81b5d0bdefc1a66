"""How much of x0 is still unknown: transforms of a denoiser that fill in the estimate's variance.

The posterior bridge adds this uncertainty to its own variance (`processes.gaussian`). Each choice is a
function of the schedule that returns a transform `Denoiser -> Denoiser`.
"""

from collections.abc import Callable

from diffusion_jax.arrays import expand
from diffusion_jax.schedules import Schedule


def fixed_large(schedule: Schedule) -> Callable:
    """Var[x0 | x_t] = sigma_t^2: the kernel's variance becomes beta_t, optimal for data x0 ~ N(0, I).

    DDPM section 3.2, first choice, at any stride: with a variance-preserving schedule the kernel from t to s
    has variance 1 - (alpha_t / alpha_s)^2.
    """

    def transform(denoise):
        def denoise_with_variance(x_t, t):
            return denoise(x_t, t)._replace(var=expand(schedule.sigma(t), x_t) ** 2)

        return denoise_with_variance

    return transform


def posterior(schedule: Schedule) -> Callable:
    """Var[x0 | x_t] = 0: the kernel keeps the posterior variance beta-tilde.

    DDPM section 3.2, second choice, "fixed small", optimal for data that is a single point. The identity.
    """
    del schedule
    return lambda denoise: denoise
