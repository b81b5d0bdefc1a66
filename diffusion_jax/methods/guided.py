"""Images of a class, with guidance: a network that is told a label, and at times is not (Ho & Salimans 2022)."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config, Value
from diffusion_jax.core.protocols import Guide, Null, Transform
from diffusion_jax.data import conditions
from diffusion_jax.diffusion import (
    guidance,
    losses,
    processes,
    samplers,
    schedules,
    time_sampling,
    timesteps,
    variances,
)
from diffusion_jax.methods import likelihoods
from diffusion_jax.methods.compose import Chain, Data, Method, composed
from diffusion_jax.methods.ddpm import with_table
from diffusion_jax.methods.improved import l_hybrid, parameterizations_of


def with_guidance(config: Config) -> Config:
    """`config` with a table of betas, the share of examples that are not told their label, and a usual guidance."""
    config = with_table(config)
    for name, value in guidance_values().items():
        config.diffusion[name] = value
    return config


def guidance_values(what: str = "label", withheld: float = 0.1, usual: float = 2.0) -> dict[str, Value]:
    """What a section says of classifier-free guidance: how often `what` is withheld, and the usual scale."""
    return {
        "withheld": values.share(withheld, f"share of examples that are not told their {what}"),
        "guidance": values.number(usual, "guidance where none is asked for; 1 is as learned", -1000, 1000),
    }


def method(
    config: ConfigDict,
    data: Data,
    classes: int,
    model: nn.Module,
    betas: Callable[[int], np.ndarray] = schedules.cosine_betas,
    transforms: Sequence[Transform] = (guidance.clip(),),
) -> Method:
    """A class-conditional model with a learned variance, trained for classifier-free guidance.

    Arguments as of `conditional`, with `with_guidance` in the config; `classes` tells nothing.
    """
    return of_plain(config, conditional(config, data, classes, model, betas, transforms), classes)


def conditional(
    config: ConfigDict,
    data: Data,
    classes: int,
    model: nn.Module,
    betas: Callable[[int], np.ndarray] = schedules.cosine_betas,
    transforms: Sequence[Transform] = (guidance.clip(),),
) -> Method:
    """A class-conditional model with a learned variance, without guidance.

    Args:
      config: values, as `ddpm.with_table` names them.
      data: with labels (`pixels.with_labels`); `classes` is the one that tells nothing.
      classes: how many.
      model: network of twice the data's channels, told {"label": int [B]} of 0, ..., classes.
      betas: `num -> [num]`.
      transforms: of the guided denoiser; none for latents, which have no range.
    """
    told = data._replace(sample_condition=conditions.labels(classes, null=classes))
    return learned(config, told, model, betas, transforms)


def learned(
    config: ConfigDict,
    data: Data,
    model: nn.Module,
    betas: Callable[[int], np.ndarray] = schedules.cosine_betas,
    transforms: Sequence[Transform] = (guidance.clip(),),
) -> Method:
    """A model with a learned variance, told what `data` tells; arguments as of `conditional`."""
    num = config.diffusion.timesteps
    schedule = schedules.from_betas(betas(num))
    process = processes.gaussian(schedule)
    base, ranged = parameterizations_of(schedule, num)

    def ancestral(steps: int = min(100, num)) -> Chain:
        grid = timesteps.respaced(steps, num)
        return Chain(samplers.ancestral(process), grid, transforms)

    def ddim(steps: int = timesteps.leading_steps(50, num), eta: float = 0.0) -> Chain:
        grid = timesteps.leading(steps, num)
        deterministic = processes.gaussian(schedule, processes.ddim(eta))
        certain = (*transforms, variances.posterior(schedule))
        return Chain(samplers.ancestral(deterministic), grid, certain)

    return Method(
        data,
        model=model,
        schedule=schedule,
        process=process,
        parameterization=ranged,
        loss=partial(losses.of_criterion, l_hybrid(base, ranged, process, num)),
        times=time_sampling.independent(time_sampling.table(num)),
        chains={"ancestral": ancestral, "ddim": ddim},
        preview="ddim",
        likelihoods={
            "bound": likelihoods.learned_chain(schedule, num, transforms),
            "bound_as_trained": likelihoods.learned_chain(schedule, num, transforms, likelihoods.of_table(num)),
        },
    )


def of_plain(config: ConfigDict, method: Method, classes: int) -> Method:
    """A method of labelled data without guidance, with `with_guidance` in the config, as one with it.

    Args:
      config: values.
      method: of data with labels, by a network that is told 0, ..., `classes`: the last tells nothing.
      classes: how many.
    """
    data = method.data._replace(sample_condition=conditions.labels(classes, null=classes))
    null = guidance.replacing(label=classes)
    return classifier_free(method._replace(data=data), null, config.diffusion.withheld, config.diffusion.guidance)


def classifier_free(method: Method, null: Null, withheld: float = 0.1, usual: float = 2.0) -> Method:
    """A method of conditional data, trained for and drawn with classifier-free guidance.

    Args:
      method: how the condition is learned.
      null: `cond -> cond`, the condition that tells nothing (`guidance.replacing`).
      withheld: share of the training examples that get that one.
      usual: the scale where none is asked for; 1 is as learned.
    """

    def loss(*parts):
        return losses.withholding(method.loss(*parts), null, withheld)

    def guide(guidance_scale: float = usual) -> Guide:
        # Scale 1 adds nothing: half the work.
        return guidance.conditioned if guidance_scale == 1 else guidance.classifier_free(null, guidance_scale)

    return method._replace(loss=loss, guide=guide)


build = composed(method)
