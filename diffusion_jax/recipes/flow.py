"""Flow matching (Lipman et al. 2023; rectified flow, Liu et al. 2023): a straight line from noise to data."""

from collections.abc import Callable

from ml_collections import ConfigDict

from diffusion_jax import guidance, parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.experiment import Experiment, SampleRequest
from diffusion_jax.recipes.pixels import Walk, compose, without_eta


def build(config: ConfigDict, source: Callable, shift: float = 1.0) -> Experiment:
    """Flow matching as an experiment: velocities at logit-normal times, and Euler steps down the line.

    Args:
      config: values, as `ddpm.default_config` names them (`diffusion` is not read: time is continuous).
      source: `() -> source` of the training images.
      shift: above 1 for larger images, see `schedules.shifted_flow`.
    """
    schedule = schedules.shifted_flow(schedules.flow(), shift)

    def euler(request: SampleRequest) -> Walk:
        # The deterministic bridge is Euler's step of the flow: x_s = x_t + (s - t) velocity.
        straight = processes.gaussian(schedule, processes.ddim(0.0))
        return Walk(samplers.ancestral(straight), timesteps.linear(request.steps or 50), (guidance.clip(),))

    return compose(
        config,
        source,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.velocity(schedule, parameterizations.thousandths),
        sample_time=timesteps.logit_normal_times(),
        walks={"euler": without_eta(euler)},
        preview="euler",
    )
