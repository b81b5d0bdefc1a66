"""Images and any noise schedule that is known at every t."""

from collections.abc import Callable

from ml_collections import ConfigDict

from diffusion_jax.core.protocols import OfTime, Source
from diffusion_jax.diffusion import losses, parameterizations, processes, samplers, time_sampling, timesteps
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.methods import likelihoods, pixels
from diffusion_jax.methods.compose import Chain, MakeChain, Method, by_classifier, composed


def method(
    config: ConfigDict,
    source: Source,
    schedule: Schedule,
    prediction: Callable[[Schedule, OfTime], Parameterization] = parameterizations.v,
) -> Method:
    """Diffusion by a schedule, as an experiment.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      schedule: known at every t in [0, 1].
      prediction: `(schedule, time) -> Parameterization`, what the network predicts. `parameterizations.eps` takes a
        schedule with alpha(1) > 0.
    """
    grid = likelihoods.level_grid(schedule)
    return Method(
        pixels.data(config, source),
        model=pixels.unet(config),
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=prediction(schedule, parameterizations.thousandths),
        loss=losses.simple,
        times=time_sampling.stratified(time_sampling.uniform(first=1e-3)),
        chains=chains(schedule),
        preview="ddim",
        guide=by_classifier(schedule),
        likelihoods={"ode": likelihoods.flow(schedule, grid)},
        solved={"ode": likelihoods.flow_to_tolerance(schedule, grid)},
    )


build = composed(method)


def chains(schedule: Schedule) -> dict[str, MakeChain]:
    """Ways down a schedule that is known at every t, on even grids."""

    def ancestral(steps: int = 200) -> Chain:
        return Chain(samplers.ancestral(processes.gaussian(schedule)), timesteps.linear(steps))

    def ddim(steps: int = 50, eta: float = 0.0) -> Chain:
        process = processes.gaussian(schedule, processes.ddim(eta))
        return Chain(samplers.ancestral(process), timesteps.linear(steps))

    def dpmpp_2m(steps: int = 20) -> Chain:
        return Chain(samplers.dpmpp_2m(schedule), timesteps.linear(steps))

    return {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m}
