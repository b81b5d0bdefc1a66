"""Improved DDPM (Nichol & Dhariwal 2021) on images: a cosine table, a learned variance, and fewer steps."""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from diffusion_jax.core.protocols import Criterion, Source
from diffusion_jax.diffusion import (
    guidance,
    likelihood,
    losses,
    losses_bound,
    parameterizations,
    processes,
    samplers,
    schedules,
    time_sampling,
    timesteps,
)
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.time_sampling import Times
from diffusion_jax.methods import likelihoods, pixels
from diffusion_jax.methods.compose import Chain, Method, by_classifier, composed
from diffusion_jax.methods.ddpm import ddim


def l_hybrid(base: Parameterization, learned: Parameterization, process: Process, num: int) -> Criterion:
    """L_hybrid: the mean by L_simple, the variance by the bound."""
    return losses_bound.hybrid(base, learned, process, num)


def l_vlb(base: Parameterization, learned: Parameterization, process: Process, num: int) -> Criterion:
    """L_vlb alone, for the best likelihood; draw its times with `time_sampling.loss_aware`."""
    return losses_bound.bound(learned, process, num)


def parameterizations_of(schedule: schedules.Schedule, num: int) -> tuple[Parameterization, Parameterization]:
    """The noise, and the noise and the variance: what its networks say, on a table of `num` betas."""
    # The posterior variance of the second step, as in the official code.
    narrowest = likelihood.second_variance(schedule, timesteps.uniform(num, num))
    base = parameterizations.eps(schedule, parameterizations.table_index(num))
    return base, parameterizations.learned_range(base, schedule, narrowest)


def method(
    config: ConfigDict,
    source: Source,
    criterion: Callable[[Parameterization, Parameterization, Process, int], Criterion] = l_hybrid,
    times: Callable[[int], Times] | None = None,
) -> Method:
    """Improved DDPM as an experiment.

    Args:
      config: values, as `ddpm.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      criterion: `l_hybrid` or `l_vlb`.
      times: `num -> Times`; by default uniform over the table.
    """
    num = config.diffusion.timesteps
    schedule = schedules.from_betas(schedules.cosine_betas(num))
    process = processes.gaussian(schedule)
    base, learned = parameterizations_of(schedule, num)

    def ancestral(steps: int = min(100, num)) -> Chain:
        grid = timesteps.respaced(steps, num)
        return Chain(samplers.ancestral(process), grid, (guidance.clip(),))

    return Method(
        pixels.data(config, source),
        model=pixels.unet(config, outputs=2),
        schedule=schedule,
        process=process,
        parameterization=learned,
        loss=partial(losses.of_criterion, criterion(base, learned, process, num)),
        times=time_sampling.independent(time_sampling.table(num)) if times is None else times(num),
        chains={"ancestral": ancestral, "ddim": ddim(schedule, num)},
        preview="ddim",
        guide=by_classifier(schedule),
        likelihoods={
            "bound": likelihoods.learned_chain(schedule, num, (guidance.clip(),)),
            "bound_as_trained": likelihoods.learned_chain(
                schedule, num, (guidance.clip(),), likelihoods.of_table(num)
            ),
        },
    )


build = composed(method)
