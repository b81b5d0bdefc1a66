"""The training loop: data in, steps out, and nothing lost on the way."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.core import files, rng
from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import Examples
from diffusion_jax.data import pipeline
from diffusion_jax.data.device import prefetch
from diffusion_jax.parallel import calls
from diffusion_jax.parallel.replicated import to_host
from diffusion_jax.parallel.sharded import parallel_for
from diffusion_jax.training import fork, held, interrupt, metrics, snapshots
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.hooks import Hook
from diffusion_jax.training.metrics import Log
from diffusion_jax.training.periodic import Periodic
from diffusion_jax.training.quick_eval import QuickEval
from diffusion_jax.training.state import TrainState, init_state
from diffusion_jax.training.step import check_parts, make_train_step
from diffusion_jax.training.workdir import Parent, claim, locked, parent_of
from diffusion_jax.training.writers import JsonLines, MakeWriters, Writer, tensorboard

# Of `config.log`: after so many steps something is looked at between two calls.
DUE = ("every", "checkpoint_every", "sample_every", "evaluate_every")


def fit(
    experiment: Experiment,
    config: ConfigDict,
    workdir: Path,
    *,
    config_file: Path | None = None,
    devices: Sequence[jax.Device] | None = None,
    parent: Parent | None = None,
    fixed: Collection[str] = (),
    writers: MakeWriters = tensorboard,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Train `experiment` up to step `config.train.steps`, from the newest checkpoint in `workdir` if there is one.

    Resuming is exact to the bit. SIGTERM, SIGHUP and Ctrl-C save a checkpoint and raise `SystemExit` with status
    128 + signal; Ctrl-C once more ends the process at once. Returns the last state, on the devices.

    Args:
      experiment: what to train.
      config: its `seed`, `train.batch_size`, `train.accumulate`, `train.fsdp`, `train.steps`,
        `train.steps_per_call`, `data.threads` and `log` are read here.
      workdir: where checkpoints, metrics and pictures go (`training.workdir`); made if absent.
      config_file: where `config` comes from; `diffusion_jax.sample` will look for it there.
      devices: devices of this host to use, or None for all.
      parent: where a new run begins, if not at random parameters (`training.fork`). A run that has begun goes on.
      fixed: keys of `config.FREE` that `experiment` depends on all the same: a resumed run may not change them.
      writers: `workdir -> writers` that numbers and pictures go to (`training.writers`), on the first host; beside
        metrics.jsonl, which the run itself reads.
      hooks: called every N steps (`training.hooks`).

    Raises:
      InputError: a value is not what it may be, the data or the network does not fit the config, the batch does not
        divide over the devices, the parent has another structure, or `workdir` belongs to another config or another
        run. Nothing was written then.
      RunError: the loss or its gradient is not finite (the step is named, and the last checkpoint is from
        before it), or a checkpoint or what `writers` write cannot be written.
    """
    config = values.checked(config)
    parallel = parallel_for(config.train.fsdp, devices)
    parallel.check_batch_size(config.train.batch_size)
    check_parts(config.train.batch_size // parallel.total, config.train.accumulate)
    source = experiment.data.source("train")
    check_example(source, experiment.data.example, experiment.data.transforms)
    stream = pipeline.batches(
        source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        transforms=experiment.data.transforms,
        host=jax.process_index(),
        hosts=jax.process_count(),
        threads=config.data.threads,
        prefetch=max(2, config.data.threads, config.train.steps_per_call),
    )
    template = _template(experiment)
    _check_size(template, jax.device_count() if config.train.fsdp else 1)
    parent = _parent(parent, config, workdir)
    first = partial(_first, experiment, config, parallel, parent, template)
    holding = held.load(workdir, experiment.task.held)
    # What a new run begins with may be read from files: what is wrong with them is said before anything is written.
    begins = None if _has_begun(workdir) else first()
    looking = config.log.evaluate_every and config.log.evaluate_num and parallel.joins
    quick_eval = QuickEval(experiment, config, workdir, parallel.sampling()) if looking else None
    periodic = Periodic(experiment, config, workdir, parallel, quick_eval)
    with locked(workdir, jax.process_index()):
        if jax.process_index() == 0:
            claim(workdir, config, config_file, parent, fixed)
            _remove_unfinished(workdir)
            held.save(workdir, holding)
        with Checkpoints(workdir / "checkpoints", config.log.keep or None, held.digest(holding)) as checkpoints:
            reached = max((line["step"] for line in metrics.read(workdir / metrics.FILE)), default=0)
            saved = checkpoints.restore_latest(template)
            if saved is None:
                _check_new(checkpoints, config, reached)
                saved = begins or first()
                if parent is not None:
                    checkpoints.save(*saved)  # from here on the run does not need its parent
            state, position = saved
            stream.set_state(position)
            state = parallel.hold(state)
            _announce(state, source, config, reached)
            if state.step < config.train.steps or periodic.missing(int(state.step)):
                every = [Hook(config.log.snapshot_every, partial(_keep_averages, experiment, workdir)), *hooks]
                kept = parallel.place(holding)
                state = _run(
                    experiment, config, workdir, parallel, checkpoints, state, kept, stream, periodic, writers, every
                )
    return state


def _has_begun(workdir: Path) -> bool:
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def _parent(given: Parent | None, config: ConfigDict, workdir: Path) -> Parent | None:
    """Where the run begins or began: as is given, or as its config.json says."""
    before = parent_of(workdir)
    if given is not None and before != given and (workdir / "config.json").exists():
        raise InputError(f"{workdir} holds another run; give a new --workdir to what begins from {given.workdir}")
    parent = given or before
    if parent is not None and not _has_begun(workdir) and parent.step >= config.train.steps:
        raise InputError(
            f"{parent.workdir} stood at step {parent.step}, and the fork goes on from there: "
            f"raise train.steps={config.train.steps} above it"
        )
    return parent


def _check_new(checkpoints: Checkpoints, config: ConfigDict, reached: int):
    """`InputError` where there must have been one: a save waits for the one before, and two were due by `reached`."""
    if config.log.checkpoint_every and reached > 2 * config.log.checkpoint_every:
        raise InputError(
            f"there is no checkpoint in {checkpoints.directory}, but the run's {metrics.FILE} reached step "
            f"{reached}; restore them from a copy, or start again in another work directory"
        )


def _first(experiment: Experiment, config: ConfigDict, parallel, parent: Parent | None, template: TrainState):
    """(state, data's position) that a run begins with."""
    if parent is not None:
        return fork.begin(parent, experiment, template), pipeline.position(parent.step)
    state = parallel.make(partial(_initial, experiment), rng.stream(rng.root(config.seed), "init"))
    params = experiment.task.start(to_host(state.params))
    averages = dict.fromkeys(state.averages, params)
    return state._replace(params=params, ema=params, averages=averages), pipeline.position(0)


def _initial(experiment: Experiment, key) -> TrainState:
    task, optimization = experiment.task, experiment.optimization
    return init_state(task.init, optimization.optimizer.transformation, task.times, key, optimization.averages)


def _template(experiment: Experiment) -> TrainState:
    """Shapes and dtypes of the state. Raises `InputError` if the network cannot have the shape of the data."""
    return jax.eval_shape(partial(_initial, experiment), rng.root(0))


def _run(
    experiment, config, workdir, parallel, checkpoints, state, kept, stream, periodic, writers, hooks
) -> TrainState:
    lead = jax.process_index() == 0
    start, total = int(state.step), config.train.steps
    task, optimization = experiment.task, experiment.optimization
    train_steps = parallel.train_steps(
        make_train_step(
            task.loss,
            task.times,
            optimization.optimizer.transformation,
            optimization.ema_decay,
            config.seed,
            config.train.accumulate,
            shares=parallel.shares,
            averages=optimization.averages,
            observed=optimization.optimizer.observed,
        ),
        most=config.train.steps_per_call,
    )

    def whole(params):
        return experiment.sampling.whole(params, lambda: kept)

    events = [*(config.log[name] for name in DUE), *(hook.every for hook in hooks)]
    plan = calls.plan(start, total, config.train.steps_per_call, events)
    batches = prefetch(stream, lambda batch: parallel.shard({name: batch[name] for name in experiment.data.example}))
    step, position = start, None
    with interrupt.listening() as stop:
        try:
            opened = _open(workdir, writers) if lead else []
            size, rates = config.train.batch_size, optimization.optimizer.rates
            with Log(opened, start, total, config.log.every, size, rates, shown=lead) as log:
                if periodic.missing(start):  # the run was ended after its checkpoint and before they were there
                    periodic.take(log, start, whole(state.ema))
                for call, steps in enumerate(plan, 1):
                    taken, damage = _taken(batches, len(steps))
                    if taken:
                        steps = steps[: len(taken)]
                        state, found = train_steps(state, [batch for batch, _ in taken], kept)
                        log.push(steps, found)
                        step, position = steps[-1], taken[-1][1]
                    if damage is not None:
                        log.drain()
                        checkpoints.wait()
                        if step not in (start, *checkpoints.steps()):
                            checkpoints.save(state, position)
                        raise RunError(f"{damage}; mend or remove it, and give the same command again") from damage
                    stopping = stop.requested(call)
                    # Before the checkpoint of this step: a run that is killed between the two comes by here again.
                    for hook in hooks:
                        if step == total or calls.due(step, hook.every):
                            log.drain()
                            hook.call(step, state)
                    if stopping or step == total or calls.due(step, config.log.checkpoint_every):
                        log.drain()  # what is saved is known to be finite
                        _check_space(state, workdir)
                        checkpoints.save(state, position)
                    if stopping:
                        break
                    periodic.take(log, step, whole(state.ema))
            checkpoints.wait()
        except (RunError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError):
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                error = RunError("out of memory: lower train.batch_size, or raise train.accumulate")
            with contextlib.suppress(RunError):
                checkpoints.wait()
            kept = checkpoints.steps()
            intact = f"the checkpoint of step {kept[-1]} is intact" if kept else "there is no checkpoint yet"
            raise RunError(f"{error}; {intact} ({checkpoints.directory})") from error
    if stop.signal is not None:
        line(f"stopped by signal {stop.signal} and saved at step {step}; the same command goes on from there")
        raise SystemExit(128 + stop.signal)
    if periodic.preview and lead:
        line(f"samples during training: {periodic.preview.directory}")
    return state


def _taken(batches, most: int) -> tuple[list, InputError | None]:
    """Up to `most` batches with their positions, and what the data said if the example after them cannot be read."""
    taken = []
    try:
        for each in itertools.islice(batches, most):
            taken.append(each)
    except InputError as error:
        return taken, error
    return taken, None


def _open(workdir: Path, writers: MakeWriters) -> list[Writer]:
    """metrics.jsonl and the writers beside it."""
    try:
        return [JsonLines(workdir / metrics.FILE), *writers(workdir)]
    except OSError as error:
        raise RunError(
            f"the run's log cannot be written ({error}); free disk space and give the same command again"
        ) from error


def _keep_averages(experiment: Experiment, workdir: Path, step: int, state: TrainState):
    """Snapshots of the averages that others can be made of after training."""
    for name, average in experiment.optimization.averages.items():
        if average.sigma_rel is not None:
            params = to_host(state.averages[name])
            if jax.process_index() == 0:
                snapshots.save(workdir / "averages", average.sigma_rel, step, params)


def _remove_unfinished(workdir: Path):
    """Remove what a killed run left of files that only a run writes."""
    of_folder = {".": ("*.json", held.FILE), "samples": ("step_*.png",), "averages": ("*.safetensors",)}
    for folder, pattern in ((folder, pattern) for folder, patterns in of_folder.items() for pattern in patterns):
        files.remove_unfinished(workdir / folder, pattern)


def _announce(state: TrainState, source, config: ConfigDict, logged: int):
    if jax.process_index() == 0:
        parameters = sum(x.size for x in jax.tree.leaves(state.params))
        step, total = int(state.step), config.train.steps
        course = f"going on from step {step} to {total}" if step else f"from the start to step {total}"
        course += f" ({logged - step} steps that were logged are made again)" if logged > step else ""
        reached = f"step {step} is reached already: raise --config.train.steps to go on"
        line(
            f"{parameters:,} parameters, {len(source):,} examples, batch {config.train.batch_size} on "
            f"{jax.device_count()} x {jax.devices()[0].device_kind}, {course if step < total else reached}"
        )


def _check_size(template: TrainState, devices: int):
    """Raise `InputError` if the state alone, spread over so many devices, is more than they can hold."""
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(template))
    memory = devices * _memory(jax.local_devices()[0])
    if size > memory:
        count = sum(x.size for x in jax.tree.leaves(template.params))
        raise InputError(
            f"training {count:,} parameters takes {size / 2**30:,.0f} GiB for them, their averages and the "
            f"optimiser's state, and there are {memory / 2**30:,.0f}; take a smaller model, or train.fsdp"
        )


def _memory(device) -> int:
    """Bytes of a device, or of this host where a device does not say."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_example(
    source: Examples, wanted: Mapping[str, jax.ShapeDtypeStruct], transforms: Sequence[Callable[..., Any]] = ()
):
    """`InputError` unless the first example of `source`, transformed, has the arrays `wanted` (`Data.example`)."""
    found = source[0]
    for transform in transforms:
        found = transform(found, np.random.default_rng(0))
    for name, array in wanted.items():
        if name not in found:
            raise InputError(f"the data has no {name}, only {', '.join(found)}; give a source that has it")
        given = np.asarray(found[name])
        if given.shape != array.shape:
            raise InputError(
                f"the data's {name} is {_by(given.shape)}, the config's {_by(array.shape)}; "
                "set data.shape to what the data has"
            )
        if given.dtype.kind != array.dtype.kind:
            raise InputError(f"the data's {name} is {given.dtype}, not {array.dtype}; convert it in the source")


def _by(shape) -> str:
    return "x".join(map(str, shape)) or "a number"


def _check_space(state: TrainState, workdir: Path):
    """Say that the disk is full before half a checkpoint is on it."""
    needed = sum(x.nbytes for x in jax.tree.leaves(state))
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise RunError(
            f"the disk is full: a checkpoint of step {int(state.step)} needs {needed / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free; free some and give the same command again"
        )
