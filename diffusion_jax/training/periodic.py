"""Previews and measurements at intervals during training, with the averaged parameters."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.core import rng
from diffusion_jax.core.errors import NotFiniteError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import Parallel, Tree
from diffusion_jax.data import images
from diffusion_jax.parallel import calls
from diffusion_jax.training import metrics
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.quick_eval import QuickEval, distances


class Periodic:
    """All of them; a resumed run makes up for those that it missed.

    Args:
      experiment: the experiment that is trained.
      config: its `seed`, `train.steps` and `log`.
      workdir: where they are saved.
      parallel: compiles functions for the devices of training.
      quick_eval: measures the quality of samples, or None.
    """

    def __init__(
        self,
        experiment: Experiment,
        config: ConfigDict,
        workdir: Path,
        parallel: Parallel,
        quick_eval: QuickEval | None,
    ):
        shown = config.log.sample_every and config.log.samples and experiment.sampling.preview and parallel.joins
        self.preview = Preview(experiment, config, workdir, parallel.sampling()) if shown else None
        self._judge, self._log, self._total = quick_eval, config.log, config.train.steps
        self._file = workdir / metrics.FILE

    def missing(self, step: int) -> bool:
        """Whether something is due after `step` and not there."""
        picture = self.preview and self._due(step, self._log.sample_every) and not self.preview.path(step).exists()
        measured = self._judge and self._due(step, self._log.evaluate_every)
        return bool(picture or (measured and step not in dict(distances(self._file))))

    def take(self, log: metrics.Log, step: int, params: Tree) -> None:
        """All that is due after `step`."""
        try:
            if self.preview and self._due(step, self._log.sample_every):
                log.picture(step, "samples", self.preview.draw(params, step))
            if self._judge and self._due(step, self._log.evaluate_every):
                log.scalars(step, self._judge.measure(params, step))
        except NotFiniteError as error:  # a young network may draw such; its training goes on
            line(f"step {step}: {error}")

    def _due(self, step: int, every: int) -> bool:
        return step > 0 and (step == self._total or calls.due(step, every))


class Preview:
    """The same `log.samples` noises, drawn with the averaged parameters, again and again during training."""

    def __init__(self, experiment: Experiment, config: ConfigDict, workdir: Path, parallel: Parallel):
        self.directory = workdir / "samples"
        count = len(parallel.devices)
        size = math.ceil(config.log.samples / count) * count
        self._keys = rng.per_example(rng.stream(rng.root(config.seed), "preview"), jnp.arange(size))
        self._num, self._view = config.log.samples, experiment.data.view
        self._cond = experiment.data.sample_condition(size, {})
        drawn = experiment.sampling.preview(size // parallel.programs)  # type: ignore[misc]  # only where there is one
        self._sample = parallel.sample(drawn)

    def draw(self, params: Tree, step: int) -> np.ndarray:
        """The picture, uint8 [H, W, C]; the first host also writes it to `directory`."""
        samples = self._sample(params, self._keys, *self._cond)
        picture = self._view.picture(jax.tree.map(lambda x: x[: self._num], samples))
        if jax.process_index() == 0:
            images.save_png(self.path(step), picture)
        return picture

    def path(self, step: int) -> Path:
        return self.directory / f"step_{step:08d}.png"
