"""The training loop: data in, steps out, and nothing lost on the way.

The host never waits for the step it has just started: metrics are read `LAG` steps late, so the devices always
have work queued, and what is queued stays bounded.
"""

import collections
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from diffusion_jax import images, rng
from diffusion_jax.config import line
from diffusion_jax.data import pipeline
from diffusion_jax.data.device import prefetch
from diffusion_jax.errors import InputError, RunError
from diffusion_jax.experiment import Experiment
from diffusion_jax.training import interrupt
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.metrics import NoRecorder, Recorder
from diffusion_jax.training.parallel import DataParallel
from diffusion_jax.training.state import TrainState, init_state
from diffusion_jax.training.step import make_train_step

LAG = 2


def fit(experiment: Experiment, config: ConfigDict, workdir: Path, devices=None) -> TrainState:
    """Train `experiment` up to step `config.train.steps`, from the newest checkpoint in `workdir` if there is one.

    Resuming is exact to the bit. SIGTERM and Ctrl-C save a checkpoint and raise `SystemExit` with status
    128 + signal. Returns the last state, on the devices.

    Args:
      experiment: what to train.
      config: its `seed`, `train.batch_size`, `train.steps`, `data.threads` and `log` are read here.
      workdir: where checkpoints, metrics and pictures go; `workdir.claim` has made it.
      devices: devices of this host to use, or None for all.

    Raises:
      InputError: the data does not fit the experiment, or the batch does not divide over the devices.
      RunError: the loss or its gradient is not finite (the step is named, and the last checkpoint is from
        before it), or a checkpoint cannot be written.
    """
    parallel = DataParallel(devices)
    parallel.check_batch_size(config.train.batch_size)
    lead = jax.process_index() == 0
    source = experiment.source()
    _check_source(source, experiment.shape)
    stream = pipeline.batches(
        source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        transforms=experiment.transforms,
        host=jax.process_index(),
        hosts=jax.process_count(),
        threads=config.data.threads,
        prefetch=max(2, config.data.threads),
    )
    with (
        Checkpoints(workdir / "checkpoints", config.log.keep) as checkpoints,
        Recorder(workdir) if lead else NoRecorder() as recorder,
        interrupt.listening() as stop,
    ):
        root = jax.random.key(config.seed)
        state = init_state(experiment.init, experiment.optimizer, rng.stream(root, "init"))
        parameters = sum(x.size for x in jax.tree.leaves(state.params))
        saved = checkpoints.restore_latest(state)
        if saved is not None:
            state, position = saved
            stream.set_state(position)
        state = parallel.replicate(state)
        start = saved_step = int(state.step)
        total = config.train.steps
        if lead:
            line(
                f"{parameters:,} parameters, {len(source):,} images, {jax.device_count()} x "
                f"{jax.devices()[0].device_kind}, batch {config.train.batch_size}, "
                + (f"resuming at step {start}" if start else "from the start")
                + f" to step {total}"
            )
        if start >= total:
            return state
        train_step = parallel.train_step(
            make_train_step(experiment.loss, experiment.optimizer, experiment.ema_decay, config.seed)
        )
        preview = _Preview(experiment, config, parallel) if config.log.sample_every and lead else None
        window = _Window(checkpoints, config)
        pending: collections.deque = collections.deque()
        batches = prefetch(stream, lambda batch: parallel.shard({"image": batch["image"]}))
        with tqdm(total=total, initial=start, unit="step", disable=not lead, dynamic_ncols=True) as bar:
            for step in range(start + 1, total + 1):
                batch, position = next(batches)
                state, metrics = train_step(state, batch)
                pending.append((step, metrics))
                stopping = stop.requested(step)
                saving = stopping or step == total or step % config.log.checkpoint_every == 0
                # A save waits for its own step: what is written is known to be finite.
                while len(pending) > (0 if saving else LAG):
                    _record(*pending.popleft(), window, recorder, bar)
                if saving and saved_step != step:
                    _check_space(state, workdir, checkpoints)
                    checkpoints.save(state, position)
                    saved_step = step
                if preview and (step == total or step % config.log.sample_every == 0):
                    recorder.picture(step, "samples", preview.draw(state.ema, step, workdir))
                    window.restart()
                if stopping:
                    break
        checkpoints.wait()
    if stop.signal is not None and saved_step < total:
        line(f"stopped by a signal at step {saved_step}; saved; the same command goes on from there")
        raise SystemExit(128 + stop.signal)
    return state


class _Window:
    """Metrics since the last line of the log: their mean, and the speed."""

    def __init__(self, checkpoints: Checkpoints, config: ConfigDict):
        self._checkpoints, self._config = checkpoints, config
        self._seen: list[dict[str, float]] = []
        self.restart()

    def restart(self):
        """Do not count the time until now (pictures were drawn)."""
        self._since, self._counted = time.perf_counter(), len(self._seen)

    def add(self, step: int, values: dict[str, float]) -> dict[str, float] | None:
        """Take one step's metrics; the summary if a line is due. Raises `RunError` if one is not finite."""
        if not all(math.isfinite(value) for value in values.values()):
            kept = self._checkpoints.steps()
            raise RunError(
                f"not finite at step {step}: "
                + ", ".join(f"{name} = {value}" for name, value in values.items())
                + (f"; the checkpoint of step {kept[-1]} is intact" if kept else "; no checkpoint was made yet")
                + f". Lower train.learning_rate ({self._config.train.learning_rate}) or raise train.warmup_steps "
                "in a new work directory"
            )
        self._seen.append(values)
        if step % self._config.log.every and step != self._config.train.steps:
            return None
        seconds = time.perf_counter() - self._since
        summary = {name: float(np.mean([v[name] for v in self._seen])) for name in values}
        steps_timed = len(self._seen) - self._counted
        summary["images_per_second"] = round(steps_timed * self._config.train.batch_size / seconds, 1)
        self._seen = []
        self.restart()
        return summary


def _record(step, metrics, window: _Window, recorder, bar):
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    summary = window.add(step, values)
    bar.update()
    if summary:
        recorder.scalars(step, summary)
        bar.set_postfix_str(f"loss {summary['loss']:.4f}, {summary['images_per_second']:.0f} images/s")


class _Preview:
    """The same `log.samples` noises, drawn by the averaged parameters, again and again during training."""

    def __init__(self, experiment: Experiment, config: ConfigDict, parallel: DataParallel):
        count = len(parallel.devices)
        each = math.ceil(config.log.samples / count)
        self._keys = rng.per_example(rng.stream(jax.random.key(config.seed), "preview"), jnp.arange(each * count))
        self._num = config.log.samples
        self._sample: Callable = parallel.sample(experiment.preview(each))

    def draw(self, params, step: int, workdir: Path):
        """The grid, uint8 [H, W, C]; also written to `workdir`/samples/."""
        picture = images.grid(images.to_uint8(self._sample(params, self._keys)[: self._num]))
        images.save_png(workdir / "samples" / f"step_{step:08d}.png", picture)
        return picture


def _check_source(source, shape):
    found = source[0]["image"].shape
    if tuple(found) != tuple(shape):
        raise InputError(
            f"the data's images are {'x'.join(map(str, found))}, the config's {'x'.join(map(str, shape))}; "
            "set data.shape to what the data has"
        )


def _check_space(state: TrainState, workdir: Path, checkpoints: Checkpoints):
    """Say that the disk is full before half a checkpoint is on it."""
    needed = sum(x.nbytes for x in jax.tree.leaves(state))
    free = shutil.disk_usage(workdir).free
    if free < needed:
        kept = checkpoints.steps()
        raise RunError(
            f"the disk is full: a checkpoint of step {int(state.step)} needs {needed / 2**20:.0f} MiB and "
            f"{workdir} has {free / 2**20:.0f} MiB free; free some and give the same command again"
            + (f": it goes on from step {kept[-1]}" if kept else "")
        )
