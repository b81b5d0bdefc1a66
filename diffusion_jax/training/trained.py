"""The parameters of a run, from its checkpoints."""

from pathlib import Path

import jax

from diffusion_jax.core import rng
from diffusion_jax.core.protocols import Tree
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.experiment import Experiment


def parameters(folder: Path, of: Experiment, item: str = "ema", step: int | None = None) -> tuple[int, Tree]:
    """(step, parameters) of the run in `folder`: `item` is "ema", "params", or another of a checkpoint's."""
    template = jax.eval_shape(of.task.init, rng.root(0))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.restore(item, template, step)
