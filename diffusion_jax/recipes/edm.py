"""EDM (Karras et al. 2022): preconditioned networks, log-normal noise levels, steps equal in sigma^(1/7)."""

from collections.abc import Callable

from ml_collections import ConfigDict

from diffusion_jax import parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.experiment import Experiment, SampleRequest
from diffusion_jax.recipes.pixels import Walk, compose, without_eta


def build(config: ConfigDict, source: Callable, sigma_data: float = 0.5, sigma_max: float = 80.0) -> Experiment:
    """EDM as an experiment.

    Args:
      config: values, as `ddpm.default_config` names them (`diffusion` is not read: time is continuous).
      source: `() -> source` of the training images.
      sigma_data: standard deviation of the pixels in [-1, 1]; 0.5 for photographs.
      sigma_max: the largest noise level.
    """
    schedule = schedules.edm(sigma_max)

    def euler(request: SampleRequest) -> Walk:
        grid = timesteps.karras(schedule, request.steps or 40, sigma_max=sigma_max)
        return Walk(samplers.ancestral(processes.gaussian(schedule, processes.ddim(0.0))), grid)

    def stochastic(request: SampleRequest) -> Walk:
        grid = timesteps.karras(schedule, request.steps or 100, sigma_max=sigma_max)
        return Walk(samplers.ancestral(processes.gaussian(schedule)), grid)

    return compose(
        config,
        source,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.edm(schedule, sigma_data),
        sample_time=timesteps.log_normal_times(sigma_max),
        walks={"euler": without_eta(euler), "ancestral": without_eta(stochastic)},
        preview="euler",
    )
