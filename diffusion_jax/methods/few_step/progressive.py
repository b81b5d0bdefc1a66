"""Progressive distillation (Salimans & Ho 2022): a teacher, of v by default, and students of half its steps."""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Apply, Guide, Loss, MakeLoss, OfTime, Transform
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
from diffusion_jax.diffusion.few_step import progressive, teachers
from diffusion_jax.diffusion.likelihood import HEUN
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.methods import likelihoods, pixels
from diffusion_jax.methods.compose import Chain, Method, composed
from diffusion_jax.methods.few_step import teachers as runs
from diffusion_jax.models.unets.adm import ADMUNet, heads_always
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.training.experiment import Data
from diffusion_jax.training.optimizers import falling

SCHEDULE = schedules.bounded_cosine()
TIME = parameterizations.angle(SCHEDULE)
V, X0_AND_EPS = parameterizations.v(SCHEDULE, TIME), parameterizations.x0_and_eps(SCHEDULE, TIME)
TRUNCATED_SNR, OF_V = losses.truncated_snr(SCHEDULE), losses.of_v(SCHEDULE)
BOUNDS = (guidance.clip(),)


def with_steps(config: Config) -> Config:
    """`config` with a teacher, the steps of one student, and those of the stages of `diffusion_jax.distill`."""
    config = runs.with_teacher(config)
    config.distill.steps = values.count(8, "steps of the student, half of its teacher's", 100_000)
    whole = values.Whole(1, 100_000)
    config.distill.stages = values.listed((16, 8, 4, 2, 1), "steps of the students, in turn", whole, 1, 20)
    config.distill.updates = values.listed(
        (), "updates of each of them, if not train.steps", values.Whole(1, 10**9), 0, 20
    )
    config.train.ema_decay = 0.0  # students are not averaged
    for other in ("warmup_steps", "decay_steps", "final_rate"):  # the rate falls linearly (`optimizers.falling`)
        del config.train[other]
    config.log.preview_steps = 0  # a student has its own number
    return config


def config_cifar() -> Config:
    """The values of the paper's CIFAR-10 network, of 60 million parameters."""
    config = pixels.default_config()
    config.model.channels = 256
    config.model.multipliers = (1, 1, 1)
    config.model.blocks = 3
    config.model.attention_levels = (1, 2)
    config.model.dropout = 0.0
    return config


def network(config: ConfigDict, **fields: Any) -> Skeleton:
    """The paper's U-Net, with one head of attention where `fields` have no other."""
    return pixels.unet(config, **{"kind": ADMUNet, "heads": heads_always(1), **fields})


def merged(weight: OfTime = OF_V) -> MakeLoss:
    """A teacher's loss in x0 where its outputs are merged, as `Method.loss`; by default that of one that says v."""

    def make(apply: Apply, parameterization: Parameterization, process: Process) -> Loss:
        return losses.of_criterion(losses.error_in_x0(parameterization, weight), apply, parameterization, process)

    return make


def teacher(
    config: ConfigDict,
    data: Data,
    model: nn.Module,
    transforms: Sequence[Transform] = BOUNDS,
    parameterization: Parameterization = V,
    loss: MakeLoss = losses.simple,
) -> Method:
    """A diffusion model on the cosine schedule, at continuous times: what is distilled.

    Args:
      config: values, as `compose.base_config` names them.
      data: any; `transforms` bounds it in sampling.
      model: its network.
      transforms: of the denoiser, in sampling.
      parameterization: what the network says, `V`, or `X0_AND_EPS` in twice the channels.
      loss: `losses.simple`, which in v has the weight SNR + 1, or `merged()`, which has it for both.
    """
    grid = likelihoods.level_grid(SCHEDULE)

    def ddim(steps: int = 50, eta: float = 0.0) -> Chain:
        process = processes.gaussian(SCHEDULE, processes.ddim(eta))
        return Chain(samplers.ancestral(process), progressive.grid(steps), transforms)

    def ancestral(steps: int = 250) -> Chain:
        return Chain(samplers.ancestral(processes.gaussian(SCHEDULE)), timesteps.linear(steps), transforms)

    return Method(
        data,
        model=model,
        schedule=SCHEDULE,
        process=processes.gaussian(SCHEDULE),
        parameterization=parameterization,
        loss=loss,
        times=time_sampling.stratified(time_sampling.uniform(first=1e-4)),
        chains={"ddim": ddim, "ancestral": ancestral},
        preview="ddim",
        likelihoods={"ode": likelihoods.flow(SCHEDULE, grid, 200, HEUN)},
    )


def method(
    config: ConfigDict,
    data: Data,
    model: nn.Module,
    transforms: Sequence[Transform] = BOUNDS,
    weight: OfTime = TRUNCATED_SNR,
    guide: Guide = guidance.conditioned,
    parameterization: Parameterization = V,
) -> Method:
    """A student of `config.distill.steps`, which starts as its teacher: a run of twice the steps, or of `teacher`.

    Args:
      config: values, as `with_steps` names them.
      data, model, transforms: as of the teacher.
      weight: of the squared error in x0, `losses.truncated_snr` or `losses.of_v` of the schedule.
      guide: what the teacher makes of its condition (`few_step.guided.by_told_scale` for stage 1's students).
      parameterization: what teacher and student say.
    """
    steps = config.distill.steps
    grid = progressive.grid(2 * steps)
    read = runs.reader(config.distill.teacher, data, model, SCHEDULE, parameterization)

    def ddim(steps: int | None = None) -> Chain:
        known = progressive.check_steps(steps, {config.distill.steps})
        process = processes.gaussian(SCHEDULE, processes.ddim(0.0))
        return Chain(samplers.ancestral(process), progressive.grid(known), transforms)

    held = teachers.held(runs.apply_of(model), parameterization, guide)
    return teacher(config, data, model, transforms, parameterization)._replace(
        loss=progressive.distillation(SCHEDULE, grid, held, weight),
        times=progressive.steps(SCHEDULE, grid),
        chains={"ddim": ddim},
        likelihoods={},
        optimizer=falling,
        start=lambda params: read(),
        held=lambda: {runs.NAME: read()},
    )


build_teacher, build = composed(teacher), composed(method)
