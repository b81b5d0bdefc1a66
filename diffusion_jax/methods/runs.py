"""Trained runs that another run learns from, or around: a teacher, a first stage, a prior above."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Tree
from diffusion_jax.training import workdir
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.trained import parameters


class Run(NamedTuple):
    """A trained run.

    Attributes:
      experiment: what its config builds.
      read: `() -> params`, NumPy arrays: the averaged parameters of its newest checkpoint.
    """

    experiment: Experiment
    read: Callable[[], Tree]


def opened(folder: str, flag: str, what: str) -> Run:
    """The run in `folder`. Its config file is executed, as by `sample`; its parameters are not read yet.

    Args:
      folder: a work directory.
      flag: the option that names it, such as --config.codes.run.
      what: what it should hold, such as "run of codes".

    Raises:
      InputError: no folder is given, or it holds no run that has been trained.
    """
    if not folder:
        raise InputError(f"there is no {what}; give the work directory of one: {flag}=runs/NAME")
    path = Path(folder)
    if not (path / "checkpoints").is_dir():
        raise InputError(f"there is no trained run in {folder} ({flag}); train it first, or say where it has moved")
    module, config = workdir.open_existing(path)
    experiment = module.build(config)
    return Run(experiment, lambda: jax.tree.map(np.asarray, parameters(path, experiment)[1]))


def check_alike(params: Tree, template: Tree, folder: str, section: str):
    """`InputError` unless `params`, of `folder`, have the shapes of `template`, of the config's section `section`."""
    wanted, found = (
        {path: leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)} for tree in (template, params)
    )
    for path in [*wanted, *found]:
        if wanted.get(path) != found.get(path):
            where = "/".join(str(key.key) for key in path)
            raise InputError(
                f"the network in {folder} is another: {where} is {found.get(path, 'not there')}, here "
                f"{wanted.get(path, 'not there')}; give the values of --config.{section} that it has"
            )
