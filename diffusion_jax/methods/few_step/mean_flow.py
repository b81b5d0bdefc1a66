"""MeanFlow (Geng et al. 2025): a flow's average velocities, learned from data alone; samples in one step."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Network, Null
from diffusion_jax.diffusion import guidance, losses, parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.few_step import mean_flow
from diffusion_jax.diffusion.time_sampling import Times
from diffusion_jax.methods.compose import Chain, Method, composed
from diffusion_jax.training.experiment import Data


def with_pairs(config: Config) -> Config:
    """`config` with what the method has of its own, the official values for CIFAR-10; previews of one step."""
    config.log.preview_steps = 1
    config.mean_flow = Config(
        apart=values.share(0.75, "share of examples whose two times are apart"),
        power=values.number(0.75, "power of an example's squared error that its loss is divided by", 0, 2),
        offset=values.number(1e-3, "what is added to the squared error before that", 1e-12, 1e6),
    )
    return config


def with_guidance(config: Config) -> Config:
    """`config` with what `guided` has of its own."""
    config.mean_flow.omega = values.number(1.0, "guidance inside: weight of an example's velocity", 0, 1000)
    config.mean_flow.kappa = values.share(
        0.5, "weight of the network's own; guidance is omega / (1 - kappa)", below=True
    )
    config.mean_flow.withheld = values.share(0.1, "share of examples that are not told their label")
    return config


def method(
    config: ConfigDict,
    data: Data,
    model: Network,
    pairs: Callable[[float], Times] = mean_flow.cifar_pairs,
    along: mean_flow.Along = mean_flow.taught,
    unit: float = 10.0,
) -> Method:
    """MeanFlow as an experiment.

    Args:
      config: values, as `with_pairs` names them.
      data: any.
      model: a network of two times (`models.two_times.listening`).
      pairs: `share apart -> Times` of spans, `mean_flow.cifar_pairs` or `imagenet_pairs`.
      along: `mean_flow.taught`, or `mean_flow.predicted` for improved MeanFlow.
      unit: the network is told t and t - s in multiples of 1 / unit. du/dt, and with it the spread of what is
        learned, grows with it: in thousandths the network does not learn.

    Raises:
      InputError: attention that has no derivative forwards.
    """
    if config.model.get("flash", False):
        raise InputError(
            "cuDNN's attention has no derivative forwards, which MeanFlow takes; leave --config.model.flash out"
        )
    schedule, own = schedules.flow(), config.mean_flow

    def time(t):
        return unit * t

    def jump(steps: int = 1) -> Chain:
        return Chain(samplers.jump(schedule), timesteps.linear(steps))

    def euler(steps: int = 50) -> Chain:
        # The velocity itself, a span of no length: what plain flow matching would have learned.
        return Chain(samplers.euler(schedule), timesteps.linear(steps))

    return Method(
        data,
        model=model,
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.flow_map(parameterizations.velocity(schedule, time), time),
        loss=partial(mean_flow.mean_flow, along=along, weight=mean_flow.adaptive(own.power, own.offset)),
        times=pairs(own.apart),
        chains={"jump": jump, "euler": euler},
        preview="jump",
    )


def guided(config: ConfigDict, method: Method, classes: int) -> Method:
    """`method` of labelled data, with guidance inside: samples are guided in one look a step.

    Labels are withheld at every span, so that samples of no label can be drawn in one step too; the official code
    withholds them where both times are one.

    Args:
      config: values, as `with_guidance` names them.
      method: of this page, whose data has labels and whose network is told them (`few_step.guided.labelled`).
      classes: how many; that label tells nothing.
    """
    null, own = guidance.replacing(label=classes), config.mean_flow
    return regressing(method, mean_flow.guided(null, own.omega, own.kappa), null, own.withheld)


def regressing(method: Method, regressed: mean_flow.Along, null: Null, withheld: float) -> Method:
    """`method` of this page, which regresses on another velocity than an example's own.

    Args:
      method: whose condition `null` leaves nothing of.
      regressed: `few_step.mean_flow.guided` or `guided_as_told`.
      null: `cond -> cond`, the condition that tells nothing.
      withheld: share of examples that are told it.
    """
    criterion: Any = method.loss  # of this page: `mean_flow.mean_flow` takes `regressed` too
    of_example = partial(criterion, regressed=regressed)
    return method._replace(loss=lambda *parts: losses.withholding(of_example(*parts), null, withheld))


build = composed(method)
