"""Images and any noise schedule that is known at every t."""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from diffusion_jax.core.protocols import Network, OfTime, Source, Transform
from diffusion_jax.diffusion import losses, parameterizations, processes, samplers, time_sampling, timesteps
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.methods import likelihoods, pixels
from diffusion_jax.methods.compose import Chain, Data, MakeChain, Method, by_classifier, composed


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
    return model_of(pixels.data(config, source), pixels.unet(config), schedule, prediction)


def model_of(
    data: Data,
    model: Network,
    schedule: Schedule,
    prediction: Callable[[Schedule, OfTime], Parameterization] = parameterizations.v,
    transforms: Sequence[Transform] = (),
) -> Method:
    """Diffusion of any `data` by any network; other arguments as of `method`.

    Args:
      data: of unit size.
      model: the network, told what `data` tells.
      transforms: of the denoiser in chains: `ddpm.CLIPPED` for pixels, say.
    """
    grid = likelihoods.level_grid(schedule)
    return Method(
        data,
        model=model,
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=prediction(schedule, parameterizations.thousandths),
        loss=losses.simple,
        times=time_sampling.stratified(time_sampling.uniform(first=1e-3)),
        chains=chains(schedule, transforms),
        preview="ddim",
        guide=by_classifier(schedule),
        likelihoods={"ode": likelihoods.flow(schedule, grid)},
        solved={"ode": likelihoods.flow_to_tolerance(schedule, grid)},
    )


build = composed(method)


def says_x0(schedule: Schedule, time: OfTime) -> Parameterization:
    """The prediction of networks that say the data: small ones know less of noise than it has entries."""
    return parameterizations.x0(time)


def chains(schedule: Schedule, transforms: Sequence[Transform] = ()) -> dict[str, MakeChain]:
    """Ways down a schedule that is known at every t, on even grids."""

    def ancestral(steps: int = 200) -> Chain:
        return Chain(samplers.ancestral(processes.gaussian(schedule)), timesteps.linear(steps), transforms)

    def ddim(steps: int = 50, eta: float = 0.0) -> Chain:
        process = processes.gaussian(schedule, processes.ddim(eta))
        return Chain(samplers.ancestral(process), timesteps.linear(steps), transforms)

    def dpmpp_2m(steps: int = 20) -> Chain:
        return Chain(samplers.dpmpp_2m(schedule), timesteps.linear(steps), transforms)

    return {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m}
