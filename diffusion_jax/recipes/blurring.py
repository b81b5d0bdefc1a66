"""Blurring diffusion (Hoogeboom & Salimans 2022): noise that takes fine detail first."""

from collections.abc import Callable

from ml_collections import ConfigDict

from diffusion_jax import (
    guidance,
    losses,
    parameterizations,
    processes,
    samplers,
    schedules,
    timesteps,
    training_times,
)
from diffusion_jax.experiment import Experiment, SampleRequest
from diffusion_jax.recipes import pixels
from diffusion_jax.recipes.compose import Walk, compose, without_eta


def build(config: ConfigDict, source: Callable, widest: float) -> Experiment:
    """Blurring diffusion as an experiment, eps in pixels and the ancestral sampler.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `() -> source` of the training images.
      widest: blur at t = 1, in pixels; the paper takes 20 for CIFAR-10.
    """
    shape, schedule, width = tuple(config.data.shape), schedules.cosine(), processes.sin_squared(widest)
    process = processes.blurring(shape, schedule, width)

    def ancestral(request: SampleRequest) -> Walk:
        # Just below t = 1, where eps would say nothing of x0.
        grid = timesteps.linear(request.steps or 200, first=0.999)
        return Walk(samplers.ancestral(process), grid, (guidance.clip(),))

    return compose(
        config,
        pixels.data(config, source),
        model=pixels.unet(config),
        process=process,
        parameterization=processes.eps_in_pixels(shape, schedule, width, parameterizations.thousandths),
        loss=losses.simple,
        times=training_times.stratified(training_times.uniform(first=1e-3)),
        walks={"ancestral": without_eta(ancestral)},
        preview="ancestral",
    )
