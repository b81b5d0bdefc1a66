"""Guided distillation (Meng et al. 2023): a student that is told the scale of guidance, for a teacher of two looks.

Stage 1 is `method`: as many steps as are asked for, one look each. Stage 2 halves its steps: `halved`.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config, Value
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Guide, MakeLoss, Null, Source, Transform
from diffusion_jax.data import conditions
from diffusion_jax.diffusion import processes, samplers
from diffusion_jax.diffusion.few_step import guided, teachers
from diffusion_jax.diffusion.few_step import progressive as halving
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, MakeGuide, Method
from diffusion_jax.methods.few_step import progressive
from diffusion_jax.methods.few_step import teachers as runs
from diffusion_jax.methods.few_step.progressive import BOUNDS, SCHEDULE, TRUNCATED_SNR, V
from diffusion_jax.models.blocks.conditioning import GuidanceEmbedding, LabelEmbedding
from diffusion_jax.training.experiment import Data


def with_scales(config: Config) -> Config:
    """`config` with the range of scales that the student is told, and the one it draws with by default.

    It has a section `distill` already (`teachers.with_teacher` or `progressive.with_steps`).
    """
    for name, value in scales(-1000).items():
        config.distill[name] = value
    return config


def scales(least: float) -> dict[str, Value]:
    """The values of a section whose network is told a scale of at least `least`."""
    return {
        "least_scale": values.number(1.0, "smallest scale of guidance that the network is told", least, 1000),
        "most_scale": values.number(5.0, "largest of them", least, 1000),
        "guidance": values.number(2.0, "scale of guidance where none is asked for", least, 1000),
    }


def method(
    config: ConfigDict,
    data: Data,
    model: nn.Module,
    teacher: nn.Module,
    null: Null,
    transforms: Sequence[Transform] = BOUNDS,
) -> Method:
    """Stage 1: the teacher's guided estimate, at any scale of the range, in one look.

    Args:
      config: values, as `with_scales` names them.
      data: with a condition of which `null` leaves nothing.
      model: the student's network (`student_of`).
      teacher: the network of a run of `progressive.teacher` with classifier-free guidance (`methods.guided`).
      null: `cond -> cond`, the condition that tells nothing.
      transforms: of the denoiser, in sampling.
    """
    read = runs.reader(config.distill.teacher, data, teacher, SCHEDULE, V)
    held = teachers.held(runs.apply_of(teacher), V, guided.by_told_scale(null))
    plain = progressive.teacher(config, told(data), model, transforms)

    def ddim(steps: int = 50) -> Chain:
        process = processes.gaussian(SCHEDULE, processes.ddim(0.0))
        return Chain(samplers.ancestral(process), halving.grid(steps), transforms)

    return plain._replace(
        loss=scales_told(guided.distillation(held, TRUNCATED_SNR), config.distill),
        chains={"ddim": ddim},
        guide=at_scale(config.distill),
        likelihoods={},
        start=lambda params: params | dict(read()),
        held=lambda: {runs.NAME: read()},
    )


def halved(config: ConfigDict, data: Data, model: nn.Module, transforms: Sequence[Transform] = BOUNDS) -> Method:
    """Stage 2: progressive distillation of a student of stage 1, or of this stage with twice the steps.

    Arguments as of `method`, with `progressive.with_steps` in the config.
    """
    student = progressive.method(config, told(data), model, transforms)
    return student._replace(loss=scales_told(student.loss, config.distill), guide=at_scale(config.distill))


def labelled(config: ConfigDict, source: Source, classes: int) -> Data:
    """Images with their labels, 0 to classes - 1; the label `classes` stands for none."""
    return with_labels(pixels.data(config, source), classes)


def with_labels(data: Data, classes: int) -> Data:
    """`data` whose examples have a label, 0 to classes - 1; the label `classes` stands for none."""
    data = pixels.with_labels(data, classes)
    return data._replace(sample_condition=conditions.labels(classes, null=classes))


def network(config: ConfigDict, classes: int) -> nn.Module:
    """A teacher's U-Net for `labelled` images."""
    return pixels.unet(config, embed={"label": LabelEmbedding(classes + 1)})


def student_of(teacher: nn.Module) -> nn.Module:
    """A U-Net that is told the scale as well, and starts as `teacher` whatever the scale."""
    return teacher.clone(embed_early={guided.NAME: GuidanceEmbedding()})


def told(data: Data) -> Data:
    """`data` whose examples have a scale of guidance in their condition, 1, in whose place training draws others."""

    def condition(batch):
        (cond,) = data.condition(batch)
        size = len(next(iter(cond.values())))
        return ({**cond, guided.NAME: jnp.ones(size)},)

    return data._replace(condition=condition)


def scales_told(loss: MakeLoss, section: ConfigDict) -> MakeLoss:
    """`loss`, as `Method.loss`, of scales drawn from the range of a config's section (`scales`)."""
    low, high = section.least_scale, section.most_scale
    return lambda *parts: guided.told(loss(*parts), low, high)


def at_scale(section: ConfigDict) -> MakeGuide:
    """The guide of such a network: one look, at a scale of the section's range; `InputError` for another."""
    low, high, usual = section.least_scale, section.most_scale, section.guidance
    if not low <= usual <= high:
        raise InputError(f"guidance = {usual:g} of the config: this model is told scales from {low:g} to {high:g}")

    def guide(guidance_scale: float = usual) -> Guide:
        if not low <= guidance_scale <= high:
            raise InputError(f"guidance {guidance_scale:g}: this model knows scales from {low:g} to {high:g}")
        return guided.at_scale(guidance_scale)

    return guide
