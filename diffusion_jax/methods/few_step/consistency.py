"""Consistency models: distilled from an EDM teacher, tuned from one (ECT), or trained from nothing (CT, improved CT).

All draw alike: one look at the noise, or a few, with fresh noise between (Song et al. 2023, algorithm 1). A teacher
is read by a function, `read`, from the run `config.distill.teacher` by default.
"""

from collections.abc import Callable, Sequence

from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Across, Distance, Hold, MakeLoss, OfLevel, Transform
from diffusion_jax.diffusion import guidance, parameterizations, samplers, schedules
from diffusion_jax.diffusion.few_step import consistency, distances, easy, pairs, stages, teachers
from diffusion_jax.diffusion.few_step.stages import Stages
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.time_sampling import Times
from diffusion_jax.methods import edits
from diffusion_jax.methods.compose import Chain, Method
from diffusion_jax.methods.few_step import teachers as runs
from diffusion_jax.training.averages import Average
from diffusion_jax.training.experiment import Data
from diffusion_jax.training.optimizers import radam

LEVELS, RENOISING = consistency.levels(), consistency.renoising()
EDM = schedules.edm(consistency.HIGH)
BOUNDS = (guidance.clip(),)
quarter_log = parameterizations.quarter_log


def with_target(config: Config) -> Config:
    """`config` with a teacher, the points of the grid, and how slowly the target follows the student."""
    config = runs.with_target(runs.with_teacher(config))
    config.distill.points = values.count(18, "points of the grid, whose neighbours are drawn", 10_000, least=2)
    config.log.preview_steps = 0
    return config


def distilled(
    config: ConfigDict,
    data: Data,
    model: nn.Module,
    sigma_data: float = 0.5,
    distance: Distance = distances.l2,
    held: Hold = dict,
    transforms: Sequence[Transform] = BOUNDS,
    time: OfLevel = quarter_log,
    read: Hold | None = None,
    solver: Callable[[Schedule], Across] = pairs.heun,
) -> Method:
    """Consistency distillation of an EDM model (Song et al. 2023, algorithm 2).

    Args:
      config: values, as `with_target` names them.
      data: any.
      model: the teacher's network, and the student's.
      sigma_data: the teacher's.
      distance: of the two estimates (`few_step.distances`).
      held: `() -> arrays by name` that the distance looks at; "teacher" is taken.
      transforms: of the denoiser, in sampling.
      time: how the network is told a level: `parameterizations.quarter_log` or `log_250`.
      read: `() -> params` of the teacher; by default of the run `config.distill.teacher` (`methods.edm`).
      solver: of the teacher's ODE between two levels, `pairs.heun` or `pairs.euler`, which looks once.
    """
    teacher = teachers.held(runs.apply_of(model), parameterizations.edm(LEVELS, sigma_data, time))
    target, averages = runs.target(config)
    loss = consistency.loss(consistency.solved(teacher, solver(LEVELS)), distance, target)
    times = stages.neighbours(LEVELS, consistency.training_grid, stages.constant(config.distill.points))
    read = read or edm_run(config, data, model, sigma_data, time)
    return model_of(data, model, sigma_data, loss, times, transforms, time=time)._replace(
        start=lambda params: read(),
        held=lambda: {runs.NAME: read(), **held()},
        averages=averages,
    )


def trained(
    data: Data,
    model: nn.Module,
    growth: Stages,
    sigma_data: float = 0.5,
    first: int = 2,
    start: float = 0.9,
    distance: Distance = distances.l2,
    held: Hold = dict,
    transforms: Sequence[Transform] = BOUNDS,
    time: OfLevel = quarter_log,
    read: Hold | None = None,
) -> Method:
    """Consistency training, from nothing or from a network, with a slow target (Song et al. 2023, algorithm 3).

    Args:
      data, model, sigma_data, distance, held, transforms, time: as of `distilled`.
      growth: points of the grid along training, `stages.growing(first, last, updates)`.
      first, start: s0 and mu0, of the target's decay (`stages.mu`).
      read: `() -> params`, from which it starts; by default from random ones.
    """
    mu = stages.mu(growth, first, start)
    loss = consistency.loss(consistency.same_noise, distance, consistency.averaged())
    times = stages.neighbours(LEVELS, consistency.training_grid, growth)
    method = started(model_of(data, model, sigma_data, loss, times, transforms, time=time), read)
    return method._replace(held=held, averages={"target": Average(lambda step: 1 - mu(step))})


def improved(
    data: Data,
    model: nn.Module,
    growth: Stages,
    sigma_data: float = 0.5,
    transforms: Sequence[Transform] = BOUNDS,
    time: OfLevel = quarter_log,
    read: Hold | None = None,
) -> Method:
    """Improved consistency training (Song & Dhariwal 2023), from nothing or from a network: no target network,
    pseudo-Huber distance, log-normal levels, weights 1 / (level_t - level_u).

    Arguments as of `trained`, with `growth` as `stages.doubling(10, 1280, updates)`.
    """
    weight = consistency.inverse_width(LEVELS)
    loss = consistency.loss(consistency.same_noise, distances.pseudo_huber(), weight=weight)
    times = stages.neighbours(LEVELS, consistency.training_grid, growth, stages.log_normal())
    return started(model_of(data, model, sigma_data, loss, times, transforms, time=time), read)


def tuned(
    config: ConfigDict,
    data: Data,
    model: nn.Module,
    each: int,
    sigma_data: float = 0.5,
    low: float = 0.003,
    transforms: Sequence[Transform] = BOUNDS,
    time: OfLevel = quarter_log,
    read: Hold | None = None,
) -> Method:
    """Easy consistency tuning of an EDM model (ECT, Geng et al. 2024).

    Args:
      config: with `teachers.with_teacher`.
      data, model, sigma_data, transforms, time, read: as of `distilled`.
      each: updates of a stage, of which there are eight.
      low: the level where chains arrive.
    """
    edm, walked = parameterizations.edm(EDM, sigma_data, time), consistency.renoising(low)
    tuning = consistency.loss(
        consistency.same_noise, distances.pseudo_huber(0.0), weight=consistency.inverse_width(EDM)
    )

    def loss(apply, parameterization, process):
        return tuning(apply, parameterizations.identity_at_zero(edm), process)

    read = read or edm_run(config, data, model, sigma_data, time)
    method = model_of(data, model, sigma_data, loss, easy.times(consistency.HIGH, each), transforms, low, time)
    return method._replace(process=consistency.process(EDM, walked), start=lambda params: read())


def edm_run(
    config: ConfigDict, data: Data, model: nn.Module, sigma_data: float = 0.5, time: OfLevel = quarter_log
) -> Hold:
    """The reader of the run of `methods.edm` in `config.distill.teacher` (`teachers.reader`)."""
    return runs.reader(config.distill.teacher, data, model, EDM, parameterizations.edm(EDM, sigma_data, time))


def started(method: Method, read: Hold | None) -> Method:
    """`method`, started from the parameters that `read` reads, where it is there."""
    return method._replace(start=lambda params: read()) if read else method


def model_of(
    data: Data,
    model: nn.Module,
    sigma_data: float,
    loss: MakeLoss,
    times: Times,
    transforms: Sequence[Transform],
    low: float = consistency.LOW,
    time: OfLevel = quarter_log,
) -> Method:
    """A consistency model, however it is trained; it is drawn from in `steps`, 1 by default."""
    walked = consistency.renoising(low)
    process = consistency.process(LEVELS, walked)

    def multistep(steps: int = 1) -> Chain:
        chosen = consistency.karras_levels(steps + 1, low)[:-1]
        return Chain(samplers.ancestral(process), consistency.grid(chosen, low), transforms)

    return Method(
        data,
        model=model,
        schedule=walked,
        process=process,
        parameterization=parameterizations.consistency(walked, sigma_data, low, time),
        loss=loss,
        times=times,
        chains={"multistep": multistep},
        preview="multistep",
        optimizer=radam,
        edits=edits.projected,
    )
