"""DDPM (Ho et al. 2020) on images, with its own sampler and DDIM's (Song et al. 2021)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Criterion, Network, Source, Transform
from diffusion_jax.diffusion import (
    guidance,
    losses,
    parameterizations,
    processes,
    samplers,
    schedules,
    time_sampling,
    timesteps,
    variances,
)
from diffusion_jax.diffusion.likelihood import HEUN
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.methods import likelihoods, pixels
from diffusion_jax.methods.compose import Chain, Data, MakeChain, Method, by_classifier, composed

CLIPPED = (guidance.clip(),)  # of estimates of pixels in [-1, 1]
Variance: TypeAlias = Callable[[schedules.Schedule], Transform]  # of a chain's kernels (`variances`)


def default_config() -> Config:
    """The values of the paper's CIFAR-10 experiment (section 4 and appendix B); configs change what differs."""
    return with_table(pixels.default_config())


def with_table(config: Config) -> Config:
    """`config` with the length of the table of betas."""
    config.diffusion = Config(timesteps=values.count(1000, "entries of the table of betas", 100_000, least=2))
    return config


def method(
    config: ConfigDict,
    source: Source,
    betas: ArrayLike | None = None,
    variance: Variance = variances.fixed_large,
) -> Method:
    """DDPM as an experiment.

    Args:
      config: values, as `default_config` names them.
      source: `split -> source` of images, "train" or "test".
      betas: the noise table, [config.diffusion.timesteps]; by default the paper's linear one.
      variance: of the ancestral sampler (`variances`): `fixed_large` for CIFAR-10, `posterior` for 256x256.

    Raises:
      InputError: values that do not fit together, image sizes that the network cannot halve among them; errors of
        `table`.
    """
    model = pixels.unet(config)
    return model_of(config, pixels.data(config, source), model, betas, variance, CLIPPED)


def model_of(
    config: ConfigDict,
    data: Data,
    model: Network,
    betas: ArrayLike | None = None,
    variance: Variance = variances.fixed_large,
    transforms: Sequence[Transform] = (),
    error: Callable[[Parameterization], Criterion] = losses.squared_error,
) -> Method:
    """DDPM of any `data`, by any network that says its noise.

    Args:
      config: values, as `with_table` names them.
      data: of unit size, such as scaled latents.
      model: the network, told what `data` tells.
      betas, variance: as of `method`.
      transforms: of the denoiser in chains: `CLIPPED` for pixels, none for latents, which have no range.
      error: of the noise: `losses.squared_error` or `losses.absolute_error`.

    Raises:
      InputError: as of `method`.
    """
    num = config.diffusion.timesteps
    schedule = table(num, betas)
    parameterization = parameterizations.eps(schedule, parameterizations.table_index(num))
    return Method(
        data,
        model=model,
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=parameterization,
        loss=partial(losses.of_criterion, error(parameterization)),
        times=time_sampling.independent(time_sampling.table(num)),
        chains={
            "ancestral": ancestral(schedule, num, variance, transforms),
            "ddim": ddim(schedule, num, transforms),
        },
        preview="ddim",
        guide=by_classifier(schedule),
        likelihoods={
            "bound": likelihoods.chain(schedule, num, (*transforms, variance(schedule))),
            "ode": likelihoods.flow(schedule, likelihoods.table_grid(schedule, num), 200, HEUN),
        },
    )


build = composed(method)


def table(num: int, betas: ArrayLike | None = None) -> schedules.Schedule:
    """The schedule of `betas`, [num]; by default of the paper's linear table.

    Raises:
      InputError: the paper's table is cut so short that it does not end in noise, from which chains start.
    """
    if betas is not None:
        return schedules.from_betas(betas)
    schedule = schedules.from_betas(schedules.linear_betas(num))
    left = schedule.alpha(1.0)
    if left > 0.1:  # 455 entries or fewer
        raise InputError(
            f"diffusion.timesteps={num}: DDPM's linear table ends with {left:.2f} of the data then, and chains start "
            "from pure noise; take 456 or more, or give `build` a table that is scaled to its length, "
            "betas=schedules.linear_betas(num, 0.1 / num, 20 / num)"
        )
    return schedule


def ancestral(
    schedule: schedules.Schedule,
    num: int,
    variance: Variance = variances.fixed_large,
    transforms: Sequence[Transform] = CLIPPED,
) -> MakeChain:
    """DDPM's own chain down a table of `num` betas."""

    def chain(steps: int = num) -> Chain:
        times = timesteps.uniform(steps, num)
        sampler = samplers.ancestral(processes.gaussian(schedule))
        return Chain(sampler, times, (*transforms, variance(schedule)))

    return chain


def ddim(schedule: schedules.Schedule, num: int, transforms: Sequence[Transform] = CLIPPED) -> MakeChain:
    """DDIM's chain down a table of `num` betas."""

    def chain(steps: int = timesteps.leading_steps(50, num), eta: float = 0.0) -> Chain:
        times = timesteps.leading(steps, num)
        process = processes.gaussian(schedule, processes.ddim(eta))
        return Chain(samplers.ancestral(process), times, (*transforms, variances.posterior(schedule)))

    return chain
