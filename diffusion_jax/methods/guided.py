"""Images of a class, with guidance: a network that is told a label, and at times is not (Ho & Salimans 2022)."""

from collections.abc import Callable, Sequence
from functools import partial

from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Transform
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
from diffusion_jax.methods.compose import Chain, Data, Method, composed, without_eta
from diffusion_jax.methods.ddpm import with_table
from diffusion_jax.methods.improved import l_hybrid, parameterizations_of
from diffusion_jax.training.experiment import SampleRequest


def with_guidance(config: Config) -> Config:
    """`config` with a table of betas, the share of examples that are not told their label, and a usual guidance."""
    config = with_table(config)
    config.diffusion.withheld = values.share(0.1, "share of examples that are not told their label")
    config.diffusion.guidance = values.number(2.0, "guidance where none is asked for; 1 is as learned", -1000, 1000)
    return config


def method(
    config: ConfigDict,
    data: Data,
    classes: int,
    model: nn.Module,
    betas: Callable = schedules.cosine_betas,
    transforms: Sequence[Transform] = (guidance.clip(),),
) -> Method:
    """A class-conditional model with a learned variance, trained for classifier-free guidance.

    Args:
      config: values, as `with_guidance` names them.
      data: with labels (`pixels.with_labels`); `classes` is the one that tells nothing.
      classes: how many.
      model: network of twice the data's channels, told {"label": int [B]} of 0, ..., classes.
      betas: `num -> [num]`.
      transforms: of the guided denoiser; none for latents, which have no range.
    """
    num = config.diffusion.timesteps
    schedule = schedules.from_betas(betas(num))
    process = processes.gaussian(schedule)
    base, learned = parameterizations_of(schedule, num)

    def ancestral(request: SampleRequest) -> Chain:
        grid = timesteps.respaced(min(100, num) if request.steps is None else request.steps, num)
        return Chain(samplers.ancestral(process), grid, transforms)

    def ddim(request: SampleRequest) -> Chain:
        grid = timesteps.leading(timesteps.leading_steps(50, num) if request.steps is None else request.steps, num)
        deterministic = processes.gaussian(schedule, processes.ddim(request.eta or 0.0))
        certain = (*transforms, variances.posterior(schedule))
        return Chain(samplers.ancestral(deterministic), grid, certain)

    plain = Method(
        data._replace(sample_condition=conditions.labels(classes, null=classes)),
        model=model,
        schedule=schedule,
        process=process,
        parameterization=learned,
        loss=partial(losses.of_criterion, l_hybrid(base, learned, process, num)),
        times=time_sampling.independent(time_sampling.table(num)),
        chains={"ancestral": without_eta(ancestral), "ddim": ddim},
        preview="ddim",
        likelihoods={
            "bound": likelihoods.learned_chain(schedule, num, transforms),
            "bound_as_trained": likelihoods.learned_chain(schedule, num, transforms, likelihoods.of_table(num)),
        },
    )
    null = guidance.replacing(label=classes)
    return classifier_free(plain, null, config.diffusion.withheld, config.diffusion.guidance)


def classifier_free(method: Method, null: Callable, withheld: float = 0.1, usual: float = 2.0) -> Method:
    """A method whose network is told a condition, trained for and drawn with classifier-free guidance.

    Args:
      method: of conditional data, with chains that are not guided.
      null: `cond -> cond`, the condition that tells nothing (`guidance.replacing`).
      withheld: share of the training examples that are told nothing.
      usual: the scale where a request has none; 1 is as learned.
    """

    def loss(*parts):
        return losses.withholding(method.loss(*parts), null, withheld)

    def guided(chain_of: Callable) -> Callable:
        def chain(request: SampleRequest) -> Chain:
            if request.classifier is not None:
                raise InputError("a model of conditions cannot be guided by a classifier; leave --classifier out")
            scale = usual if request.guidance is None else request.guidance
            # Told alone where nothing is added: half the work.
            guide = guidance.conditioned if scale == 1 else guidance.classifier_free(null, scale)
            return chain_of(request._replace(guidance=None))._replace(guide=guide)

        return chain

    chains = {name: guided(chain_of) for name, chain_of in method.chains.items()}
    return method._replace(loss=loss, chains=chains)


build = composed(method)
