"""Checkpoints through Orbax: asynchronous, atomic, the last few kept, and checked when they are read.

A checkpoint has the items `params`, `ema`, `progress` (the optimiser's state and what the drawing of times
remembers), an `average_NAME` for each further average, and `meta` (JSON): the data's position and a CRC-32 of every
array. Orbax writes into a temporary folder and renames it when complete, so a kill leaves the ones before as they
were. The checksums catch what a rename cannot: a disk that changed a byte.
"""

import logging
import sys
import zlib
from pathlib import Path

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from diffusion_jax.errors import InputError, RunError
from diffusion_jax.training.parallel import to_host
from diffusion_jax.training.state import TrainState

AVERAGE = "average_{}"  # an item


def _items(state: TrainState) -> dict:
    # The memory is often empty, and Orbax does not write an item without a leaf: it goes with the optimiser's state.
    progress = {"optimizer": state.optimizer, "memory": state.memory}
    averages = {AVERAGE.format(name): tree for name, tree in state.averages.items()}
    return {"params": state.params, "ema": state.ema, "progress": progress} | averages


class DamagedError(Exception):
    """A checkpoint whose contents are not what was written."""


class Checkpoints:
    """The checkpoints of one work directory. Close it (or use `with`) so that the last save is complete.

    Args:
      directory: the folder, made when first written to.
      keep: how many of the newest stay.
      report: called with one line for a person, when there is something to say.
    """

    def __init__(self, directory, keep: int = 3, report=lambda line: print(line, file=sys.stderr)):
        self.directory = Path(directory).absolute()
        self._report = report
        # Orbax logs every file it opens, and warns of what is meant (arrays restored as NumPy).
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, position):
        """Write `state` and the data's `position` (JSON) at `state.step`, in the background.

        Blocks while the arrays are copied to the host and, if the one before is still being written, for that. Every
        host must call it, and its memory must hold the whole state, however that is spread over devices: what is
        written does not depend on them.

        Raises:
          RunError: this save, or the one before, could not be written (a full disk).
        """
        state = to_host(state)
        items = _items(state)
        meta = {"position": position, "crc32": {name: _checksums(tree) for name, tree in items.items()}}
        step = int(state.step)
        self._writing(
            lambda: self._manager.save(
                step,
                args=ocp.args.Composite(
                    meta=ocp.args.JsonSave(meta),
                    **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                ),
            )
        )

    def restore_latest(self, template: TrainState):
        """The newest undamaged checkpoint: (state of NumPy arrays, position), or None if there is none.

        Damaged ones on the way are reported, and moved into `damaged/` so that their step can be saved again.

        Args:
          template: a state of the same structure, shapes and dtypes (values do not matter).

        Raises:
          InputError: no checkpoint is readable although there are some; nothing is overwritten.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                items, meta = self._read(step, _items(template))
            except DamagedError as error:
                self._report(f"checkpoint {step} in {self.directory} is damaged ({error}); trying the one before")
                continue
            for later in (s for s in steps if s > step):
                self._set_aside(later)
            averages = {name: items[AVERAGE.format(name)] for name in template.averages}
            state = TrainState(np.int32(step), items["params"], items["ema"], **items["progress"], averages=averages)
            return state, meta["position"]
        if steps:
            raise InputError(
                f"no checkpoint in {self.directory} can be read ({len(steps)} tried); "
                "restore them from a copy, or start again in another work directory"
            )
        return None

    def restore(self, item: str, template, step: int | None = None):
        """One item alone, of the newest step or of `step`: (step, tree of NumPy arrays).

        Args:
          item: "params", "ema", or an `AVERAGE`.
          template: a tree of the same structure, shapes and dtypes.
          step: of the checkpoint; None for the newest.

        Raises:
          InputError: there is no such checkpoint, or it is damaged.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"there is no checkpoint in {self.directory}; train first, or check --workdir")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise InputError(f"there is no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
        try:
            items, _ = self._read(step, {item: template})
        except DamagedError as error:
            others = ", ".join(str(s) for s in steps if s != step) or "none"
            raise InputError(
                f"checkpoint {step} in {self.directory} is damaged ({error}); others: {others} (--step)"
            ) from error
        return step, items[item]

    def wait(self):
        """Return when the last save is on disk; `RunError` if it could not be written."""
        self._writing(self._manager.wait_until_finished)

    def close(self):
        """`wait`, and let go of the folder."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _read(self, step: int, templates: dict):
        arguments = {
            name: ocp.args.StandardRestore(jax.tree.map(_empty, template))
            for name, template in templates.items()
        }
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(meta=ocp.args.JsonRestore(), **arguments)
            )
            meta, items = restored["meta"], {name: restored[name] for name in templates}
            expected = {name: meta["crc32"][name] for name in templates}
            chex.assert_trees_all_equal_shapes_and_dtypes(items, templates)
        except Exception as error:  # Orbax, TensorStore and JSON raise whatever they find; all mean the same
            raise DamagedError(str(error).strip().splitlines()[0][:120] if str(error) else repr(error)) from error
        for name, tree in items.items():
            found = _checksums(tree)
            wrong = sorted(key for key in expected[name] if expected[name][key] != found.get(key))
            if wrong:
                raise DamagedError(f"{name} {wrong[0]} differs from its checksum")
        return items, meta

    def _set_aside(self, step: int):
        target = self.directory.with_name("damaged") / str(step)
        target.parent.mkdir(exist_ok=True)
        while target.exists():
            target = target.with_name(target.name + "_")
        (self.directory / str(step)).rename(target)
        self._manager.reload()
        self._report(f"moved checkpoint {step} to {target}")

    def _writing(self, write):
        try:
            write()
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:160] if str(error) else repr(error)
            raise RunError(
                f"cannot write a checkpoint ({reason}); free disk space and give the same command again"
            ) from error


def _empty(leaf):
    return np.empty(np.shape(leaf), leaf.dtype)


def _checksums(tree) -> dict[str, int]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path): zlib.crc32(np.ascontiguousarray(leaf)) for path, leaf in leaves}
