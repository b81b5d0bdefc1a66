"""A run that begins where another one stood, with other values: `train --from DIR[@STEP]`.

It takes over parameters, averages, the optimiser's state and the number of the step. So a fork that changes nothing
is the parent's own continuation, to the bit: random numbers, averages and the order of the data depend on the step.
It begins with a checkpoint of its own, and knows its parent from then on only by name (`workdir.Parent`).
"""

from pathlib import Path

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.training import workdir
from diffusion_jax.training.checkpoint import AVERAGE, Checkpoints
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.state import TrainState


def named(text: str, fresh_optimizer: bool, child: Path) -> workdir.Parent:
    """The parent that `DIR` or `DIR@STEP` names: its newest checkpoint, or that of a step.

    Where `child`, the fork's work directory, has begun from there already, it is what it began from.

    Raises:
      InputError: it is no work directory, or has no such checkpoint.
    """
    name, at, step = text.rpartition("@")
    if not (at and step.isdecimal() and step.isascii() and len(step) < 12) or Path(text).is_dir():
        name, step = text, ""
    folder, begun = Path(name).resolve(), workdir.parent_of(child)
    if begun is not None and begun.workdir == str(folder) and step in ("", str(begun.step)):
        return begun._replace(fresh_optimizer=fresh_optimizer)
    workdir.values_of(folder)  # raises where there is no run
    steps = []
    if (folder / "checkpoints").is_dir():
        with Checkpoints(folder / "checkpoints") as checkpoints:
            steps = checkpoints.steps()
    if not steps:
        raise InputError(f"there is no checkpoint in {folder}; a fork takes a run that has been trained")
    found = int(step) if step else steps[-1]
    if found not in steps:
        raise InputError(f"there is no checkpoint of step {step} in {folder}; there are {', '.join(map(str, steps))}")
    return workdir.Parent(str(folder), found, fresh_optimizer)


def begin(parent: workdir.Parent, experiment: Experiment, template: TrainState) -> TrainState:
    """The state that a fork begins with: arrays of NumPy, of the parent's step.

    An exponential average that the parent has not kept begins as its parameters. With `parent.fresh_optimizer` the
    optimiser begins anew, and its warm-up with it.

    Args:
      parent: where it stood.
      experiment: the fork's.
      template: of the fork's state.

    Raises:
      InputError: the parent's network or optimiser has another structure, or it has not kept an average that would
        have to begin with the run.
    """
    folder = Path(parent.workdir)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        _, params = checkpoints.restore("params", template.params, parent.step)
        _, ema = checkpoints.restore("ema", template.ema, parent.step)
        averages = {}
        for name, average in experiment.optimization.averages.items():
            item = AVERAGE.format(name)
            if (checkpoints.directory / str(parent.step) / item).is_dir():
                _, averages[name] = checkpoints.restore(item, template.averages[name], parent.step)
            elif average.sigma_rel is None:
                averages[name] = params
            else:
                raise InputError(
                    f"the run in {folder} has kept no average {name}, and such an average begins with its run; "
                    "leave it out of --config.train.ema_profiles"
                )
        if parent.fresh_optimizer:
            kept = jax.tree.map(np.asarray, _anew(experiment, params))
        else:
            progress = {"optimizer": template.optimizer, "memory": template.memory}
            try:
                _, kept = checkpoints.restore("progress", progress, parent.step)
            except InputError as error:
                raise InputError(f"{error}; --fresh-optimizer begins with a new state of the optimiser") from error
    return TrainState(np.int32(parent.step), params, ema, kept["optimizer"], kept["memory"], averages)


def _anew(experiment: Experiment, params):
    optimizer = experiment.optimization.optimizer.transformation
    return {"optimizer": optimizer.init(params), "memory": experiment.task.times.init()}
