"""Flow matching (Lipman et al. 2023; rectified flow, Liu et al. 2023): a straight line from noise to data."""

from ml_collections import ConfigDict

from diffusion_jax.core.protocols import Source
from diffusion_jax.diffusion import (
    losses,
    parameterizations,
    processes,
    samplers,
    schedules,
    time_sampling,
    timesteps,
)
from diffusion_jax.methods import likelihoods, pixels
from diffusion_jax.methods.compose import Chain, Method, composed


def method(config: ConfigDict, source: Source, shift: float = 1.0) -> Method:
    """Flow matching as an experiment: velocities at logit-normal times, and steps down the line.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      shift: above 1 for larger images, see `schedules.shifted_flow`.
    """
    schedule = schedules.shifted_flow(schedules.flow(), shift)

    def euler(steps: int = 50) -> Chain:
        # x_s = x_t + (s - t) velocity: Euler's method, here and in the variance-exploding coordinates alike.
        return Chain(samplers.euler(schedule), timesteps.linear(steps))

    def heun(steps: int = 25) -> Chain:
        # Just below t = 1, where sigma / alpha is finite.
        return Chain(samplers.heun(schedule), timesteps.linear(steps, first=0.999))

    grid = likelihoods.level_grid(schedule)
    return Method(
        pixels.data(config, source),
        model=pixels.unet(config),
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.velocity(schedule, parameterizations.thousandths),
        loss=losses.simple,
        times=time_sampling.stratified(time_sampling.logit_normal()),
        chains={"euler": euler, "heun": heun},
        preview="euler",
        likelihoods={"ode": likelihoods.flow(schedule, grid)},
        solved={"ode": likelihoods.flow_to_tolerance(schedule, grid)},
    )


build = composed(method)
