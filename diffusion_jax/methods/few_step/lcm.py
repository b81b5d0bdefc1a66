"""Latent consistency distillation (LCM, Luo et al. 2023), of any model on a table of betas: samples in a few steps.

A teacher is a `Method`: its data, its network, its noise and what it says are the student's too. `method` distils it
as it is, and `guided` with classifier-free guidance, at any scale of a range; the student is told the scale.
"""

from collections.abc import Sequence

from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Distance, Guide, Hold, Null, Transform
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers
from diffusion_jax.diffusion.few_step import consistency, distances, latent, pairs, stages, teachers
from diffusion_jax.diffusion.few_step.guided import by_told_scale
from diffusion_jax.methods.compose import Chain, Method
from diffusion_jax.methods.few_step import guided as scales
from diffusion_jax.methods.few_step import teachers as runs

BOUNDS = (guidance.clip(),)
HUBER = distances.huber_of_entries()


def with_entries(config: Config) -> Config:
    """`config` with a teacher, the entries of the table that are distilled, and how slowly the target follows."""
    config = runs.with_target(runs.with_teacher(config))
    config.distill.original = values.count(50, "steps of the teacher's DDIM, whose neighbours are drawn", 100_000)
    config.log.preview_steps = 0
    return config


def method(
    config: ConfigDict,
    teacher: Method,
    num: int,
    read: Hold | None = None,
    guide: Guide = guidance.conditioned,
    distance: Distance = HUBER,
    transforms: Sequence[Transform] = BOUNDS,
) -> Method:
    """A student of a teacher that is drawn from as it is.

    Args:
      config: values, as `with_entries` names them.
      teacher: what is distilled, on a table of betas: eps, v or x0, with a learned variance or without.
      num: entries of the table.
      read: `() -> params` of the teacher; by default of the run `config.distill.teacher`.
      guide: what the teacher makes of its condition.
      distance: of the two estimates (`few_step.distances`).
      transforms: of the denoiser, in sampling.

    Raises:
      InputError: `config.distill.original` entries do not fit the table (`latent.training_grid`), or the teacher says
        nothing of x0 (`latent.entries`).
    """
    schedule, original = teacher.schedule, config.distill.original
    assert schedule is not None
    time = parameterizations.table_index(num)
    top = latent.entries(teacher.parameterization, schedule, num, original)
    grid = latent.training_grid(num, original, top)
    read = read or runs.of_run(config.distill.teacher, teacher)
    held = teachers.held(runs.apply_of(teacher.model), teacher.parameterization, guide)
    target, averages = runs.target(config)
    of_pair = consistency.loss(consistency.solved(held, pairs.euler(schedule)), distance, target)

    def loss(apply, parameterization, process):
        return of_pair(apply, latent.consistent(parameterization, time), process)

    def multistep(steps: int = min(4, top)) -> Chain:
        process = processes.gaussian(schedule, processes.renoise)
        bounded = (*transforms, latent.boundary(time))
        return Chain(samplers.ancestral(process), latent.grid(steps, num, original, top), bounded)

    return Method(
        teacher.data,
        model=teacher.model,
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=teacher.parameterization,
        loss=loss,
        times=stages.neighbours(schedule, lambda points: grid, stages.constant(len(grid))),
        chains={"multistep": multistep},
        preview="multistep",
        start=lambda params: read(),
        held=lambda: {runs.NAME: read()},
        averages=averages,
    )


def guided(
    config: ConfigDict,
    teacher: Method,
    num: int,
    null: Null,
    read: Hold | None = None,
    distance: Distance = HUBER,
    transforms: Sequence[Transform] = BOUNDS,
) -> Method:
    """A student of a teacher with classifier-free guidance: one look for two, at any scale of the config's range.

    Args:
      config: values, as `with_entries` and `guided.with_scales` name them.
      teacher, num, read, distance, transforms: as of `method`. The teacher's network is a U-Net.
      null: `cond -> cond`, the condition that tells nothing.
    """
    read = read or runs.of_run(config.distill.teacher, teacher)
    student = method(config, teacher, num, read, by_told_scale(null), distance, transforms)
    network: nn.Module = teacher.model  # type: ignore[assignment]  # a U-Net, or it is told no scale
    return student._replace(
        data=scales.told(teacher.data),
        model=scales.student_of(network),
        loss=scales.scales_told(student.loss, config.distill),
        guide=scales.at_scale(config.distill),
        start=lambda params: params | dict(read()),
    )
