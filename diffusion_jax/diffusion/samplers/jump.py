"""A flow map's steps: as long as is asked, each of one look."""

from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.ode import euler_plan, euler_step
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.spans import Span


def jump(schedule: Schedule) -> Sampler:
    """Euler's step, whose denoiser is told the whole step and answers for it (`spans.Span`).

        x_s = (sigma_s / sigma_t) (x_t - alpha_t D(x_t, t, s)) + alpha_s D(x_t, t, s)

    Where the denoiser is the flow map, the step is exact however long: one is enough. On the straight line
    (`schedules.flow`) with D = x_t - t u it is x_s = x_t - (t - s) u(x_t, t, s), MeanFlow's equation 12 (Geng et al.
    2025) and shortcut models' step (Frans et al. 2025). For networks of two times (`parameterizations.flow_map`). The
    plan raises `InputError` unless 0 <= s < t <= 1.
    """

    def step(keys, x_t, plan, denoise):
        euler, s = plan
        return euler_step(x_t, euler, denoise(x_t, Span(euler.t, s)).mean)

    return Sampler(lambda t, s: (euler_plan(schedule, t, s), s), init=lambda x: x, step=step, done=lambda x: x)
