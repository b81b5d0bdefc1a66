"""EDM (Karras et al. 2022): preconditioned networks, log-normal noise levels, steps equal in sigma^(1/7)."""

from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.core.protocols import Network, OfLevel, Source
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
from diffusion_jax.methods.compose import Chain, Data, MakeChain, Method, composed


class LevelGrid(Protocol):
    """`(schedule, steps, sigma_max) -> times`, float64 [steps + 1], falling from the level `sigma_max`."""

    def __call__(self, schedule: schedules.Schedule, steps: int, /, *, sigma_max: float) -> np.ndarray: ...


def method(config: ConfigDict, source: Source, sigma_data: float = 0.5, sigma_max: float = 80.0) -> Method:
    """EDM of images by the U-Net of `config.model`.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      sigma_data: standard deviation of the pixels in [-1, 1]; 0.5 for photographs.
      sigma_max: the largest noise level.
    """
    return model_of(pixels.data(config, source), pixels.unet(config), sigma_data, sigma_max)


def model_of(
    data: Data,
    model: Network,
    sigma_data: float = 0.5,
    sigma_max: float = 80.0,
    time: OfLevel = parameterizations.quarter_log,
) -> Method:
    """EDM of any `data`, whose entries have a standard deviation of `sigma_data`, by any network.

    `time` says how the network is told a level: `parameterizations.quarter_log` or `log_250`.
    """
    schedule = schedules.edm(sigma_max)

    def chain(sampler: samplers.Sampler, steps: int, grid: LevelGrid = timesteps.karras) -> MakeChain:
        def down(steps: int = steps) -> Chain:
            return Chain(sampler, grid(schedule, steps, sigma_max=sigma_max))

        return down

    def dpm_fast(steps: int = 30) -> Chain:
        # As many looks as steps are asked for, the last of them in the step to 0.
        looks = steps - 1
        times = timesteps.polyexponential(schedule, looks // 3 + 2, sigma_max=sigma_max)
        return Chain(samplers.dpm_fast(schedule, looks), times)

    grid = likelihoods.level_grid(schedule, level=2e-3)
    return Method(
        data,
        model=model,
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.edm(schedule, sigma_data, time),
        loss=losses.simple,
        times=time_sampling.independent(time_sampling.log_normal(sigma_max)),
        chains={
            "heun": chain(samplers.heun(schedule), 18),
            "churn": chain(samplers.edm(schedule, s_churn=40.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.003), 64),
            "dpmpp_2m": chain(samplers.dpmpp_2m(schedule), 20),
            "dpmpp_2m_sde": chain(samplers.dpmpp_2m_sde(schedule), 30),
            "dpmpp_sde": chain(samplers.dpmpp_sde(schedule), 20),
            "dpm_fast": dpm_fast,
            # Its steps are its own: these are where it stops, for a film to look.
            "dpm_adaptive": chain(samplers.dpm_adaptive(schedule), 2, timesteps.polyexponential),
            "euler": chain(samplers.euler(schedule), 40),
            "ancestral": chain(samplers.ancestral(processes.gaussian(schedule)), 100),
        },
        preview="heun",
        likelihoods={"ode": likelihoods.flow(schedule, grid)},
        solved={"ode": likelihoods.flow_to_tolerance(schedule, grid)},
    )


build = composed(method)
