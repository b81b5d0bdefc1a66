"""Published folders as teachers, and as what a student starts from (`methods.folders`).

`latent` is latent consistency distillation of a U-Net on a table of betas. `in_levels` has the parts of EDM's and of
consistency models' U-Nets, for the functions of `few_step.consistency`; `exported` writes their students back.
"""

import functools
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Tree
from diffusion_jax.diffusion.few_step import consistency
from diffusion_jax.diffusion.few_step.latent import entries
from diffusion_jax.diffusion.parameterizations import log_250
from diffusion_jax.methods import finetune, folders
from diffusion_jax.methods.compose import Chain, Method
from diffusion_jax.methods.few_step import lcm
from diffusion_jax.methods.folders import Opened
from diffusion_jax.pretrained.schedulers import consistency as schedulers
from diffusion_jax.pretrained.schedulers import scheduler
from diffusion_jax.training.experiment import Data


def latent(config: ConfigDict, data: Data) -> Method:
    """A student of the published UNet2DModel in `config.distill.teacher`, which is exported with an LCMScheduler.

    Args:
      config: values, as `lcm.with_entries` names them.
      data: images of as many channels, with labels if the network is told them.

    Raises:
      InputError: as of `folders.opened`, `folders.on_table` and `lcm.method`, or it is a student already.
    """
    model = folders.opened(config.distill.teacher, data, "--config.distill.teacher")
    how, num = folders.on_table(model)
    if model.scheduler["_class_name"] == "LCMScheduler":
        raise InputError(f"{model.folder} is a latent consistency model already; distil what it was made of")
    read = functools.cache(model.read)  # held, and where the student starts: one reading
    student = lcm.method(config, finetune.of_folder(model), num, read, transforms=how.transforms)
    original = config.distill.original

    def export(params: Tree, to: Path) -> None:
        if entries(how.parameterization, how.schedule, num, original) < original:
            raise InputError(
                f"the table of {model.folder} ends with too little of the data, and an LCMScheduler starts at its "
                "end; draw from the run with diffusion_jax.sample"
            )
        model.save(params, to, schedulers.distilled(model.scheduler, bool(how.transforms), original))

    return student._replace(export=export)


def in_levels(model: Opened) -> dict[str, Any]:
    """Arguments of the functions of `few_step.consistency`: data, model, sigma_data, time and read.

    Raises:
      InputError: the scheduler tells no noise levels, or others than this training has; or the network is not told
        them by a sinusoid.
    """
    known = schedulers.levels(model.scheduler)
    if (known.low, known.high) != (consistency.LOW, consistency.HIGH):
        raise InputError(
            f"{model.folder} was trained on noise levels from sigma_min = {known.low:g} to sigma_max = "
            f"{known.high:g}; students are trained from {consistency.LOW:g} to {consistency.HIGH:g}"
        )
    if model.config.get("time_embedding_type", "positional") != "positional":
        raise InputError(f"the network in {model.folder} is told no noise levels by a sinusoid, as EDM's are here")
    parts = {"data": model.data, "model": model.network.model, "read": functools.cache(model.read)}
    return parts | {"sigma_data": known.sigma_data, "time": known.time}


def exported(student: Method, model: Opened, low: float = consistency.LOW) -> Method:
    """`student`, a consistency model with the network of `model`, with an export for CMStochasticIterativeScheduler.

    It is also drawn from as that scheduler does, by the chain "published". A student whose network is told levels in
    another unit than that scheduler's, as an EDMEulerScheduler's is, has neither.

    Args:
      student: of `few_step.consistency`, made of `in_levels(model)`.
      model: the folder.
      low: the level where its chains arrive, as of `consistency.tuned`.
    """
    known = schedulers.levels(model.scheduler)
    if known.time is not log_250:
        return student
    config = {
        "_class_name": "CMStochasticIterativeScheduler",
        **schedulers.CONSISTENCY,
        "num_train_timesteps": model.scheduler.get("num_train_timesteps", 40),
        "sigma_min": low,
        "sigma_data": known.sigma_data,
    }
    how = scheduler.sampling(config)

    def published(steps: int = 1) -> Chain:
        return Chain(how.sampler, how.grid(steps), how.own)

    return student._replace(
        chains={**student.chains, "published": published},
        export=lambda params, to: model.save(params, to, config),
    )
