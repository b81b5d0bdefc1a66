"""Blurring diffusion (Hoogeboom & Salimans 2022): noise that takes fine detail first."""

from ml_collections import ConfigDict

from diffusion_jax.core.protocols import Source
from diffusion_jax.diffusion import (
    guidance,
    losses,
    parameterizations,
    processes,
    samplers,
    schedules,
    time_sampling,
    timesteps,
)
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, Method, composed


def method(config: ConfigDict, source: Source, widest: float) -> Method:
    """Blurring diffusion as an experiment: the network predicts x0, and the ancestral sampler is the paper's.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      widest: blur at t = 1, in pixels; the paper takes 20 for CIFAR-10.
    """
    shape, schedule, width = tuple(config.data.shape), schedules.cosine(), processes.sin_squared(widest)
    process = processes.blurring(shape, schedule, width)

    def ancestral(steps: int = 200) -> Chain:
        return Chain(samplers.ancestral(process), timesteps.linear(steps), (guidance.clip(),))

    return Method(
        pixels.data(config, source),
        model=pixels.unet(config),
        schedule=schedule,
        process=process,
        # The paper predicts eps (`processes.eps_in_pixels`). With few steps and clipping that favours the average
        # digit: what is fine comes divided by an alpha of 0.001 times the schedule's.
        parameterization=parameterizations.x0(parameterizations.thousandths),
        loss=losses.simple,
        times=time_sampling.stratified(time_sampling.uniform(first=1e-3)),
        chains={"ancestral": ancestral},
        preview="ancestral",
    )


build = composed(method)
