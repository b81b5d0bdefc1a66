"""Checkpoints through Orbax: asynchronous, atomic, the last few kept, and checked when they are read.

A checkpoint has the items `params`, `ema`, `progress` (the optimiser's state and what the drawing of times
remembers), an `average_NAME` for each further average, and `meta`, its manifest (`training.manifest`): step, run,
the data's position and a CRC-32 of every array, under one digest. Orbax writes into a temporary folder and renames it
when complete, so a kill leaves the ones before as they were. The digest catches what a rename cannot: a disk that
changed a byte, a folder that got another's name or came from another run.

Beside the folder lies a file of the same name and ".json": whose the checkpoints are, and which was the newest. So
one that is gone is missed.
"""

import functools
import logging
import re
import secrets
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.core.protocols import Tree
from diffusion_jax.parallel.replicated import to_host
from diffusion_jax.training import manifest
from diffusion_jax.training.manifest import DamagedError, Ledger
from diffusion_jax.training.state import TrainState

AVERAGE = "average_{}"  # an item
STEP = re.compile(r"0|[1-9][0-9]{0,9}")  # the name of a checkpoint
LATEST = 2**31 - 1  # steps are int32
UNFINISHED = ("*.orbax-checkpoint-tmp*", ".removed_*")  # what a kill leaves of a save, or of a removal


def _items(state: TrainState) -> dict:
    # The memory is often empty, and Orbax does not write an item without a leaf: it goes with the optimiser's state.
    progress = {"optimizer": state.optimizer, "memory": state.memory}
    averages = {AVERAGE.format(name): tree for name, tree in state.averages.items()}
    return {"params": state.params, "ema": state.ema, "progress": progress} | averages


class _Found(NamedTuple):
    """The newest checkpoint that is undamaged.

    Attributes:
      step: of it.
      items: its trees.
      manifest: of it.
      said: the fault of newer ones, for a person; "" if there were none.
      lost: steps from here to the newest there was.
      damaged: newer ones that are there.
    """

    step: int
    items: dict
    manifest: dict
    complaint: str
    lost: int
    damaged: list[int]


class Checkpoints:
    """The checkpoints of one work directory. Close it (or use `with`) so that the last save is complete.

    Nothing is written before the first `save`; who only reads may do so beside a run that writes.

    Args:
      directory: the folder, made when first written to.
      keep: how many of the newest stay; None for all.
      held: the digest of what the run holds (`training.held`), for who goes on with it; None for nothing.
      report: called with one line for a person, about damaged checkpoints.
    """

    def __init__(
        self,
        directory,
        keep: int | None = 3,
        held: str | None = None,
        report=lambda line: print(line, file=sys.stderr),
    ):
        self.directory = Path(directory).absolute()
        self._keep, self._held, self._report = keep, held, report
        self._ledger_file = self.directory.with_name(f"{self.directory.name}.json")
        self._run: str | None = None
        _hush()
        self._checkpointer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._save: Future | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending; other names are ignored."""
        names = [path.name for path in self.directory.iterdir()] if self.directory.is_dir() else []
        return sorted(int(name) for name in names if STEP.fullmatch(name) and int(name) <= LATEST)

    def save(self, state: TrainState, position: Any) -> None:
        """Write `state` and the data's `position` (JSON) at `state.step`, in the background.

        Blocks while the arrays are copied to the host and, if the one before is still being written, for that. Every
        host must call it, and its memory must hold the whole state, however that is spread over devices: what is
        written does not depend on them.

        Raises:
          RunError: this save, or the one before, could not be written (a full disk).
        """
        self.wait()
        state = to_host(state)
        step, items = int(state.step), _items(state)
        self._run = self._run or secrets.token_hex(16)
        meta = manifest.make(step, self._run, position, items, self._held)
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        whole = ocp.args.Composite(meta=ocp.args.JsonSave(meta), **arguments)
        self._writing(lambda: self._checkpointer.save(self._folder(step), args=whole))
        self._save = self._thread.submit(self._finish, step)

    def restore_latest(self, template: TrainState) -> tuple[TrainState, Any] | None:
        """The newest undamaged checkpoint: (state of NumPy arrays, position), or None if there has never been one.

        Damaged and missing ones on the way are reported, with the steps that are lost; damaged ones are moved into
        `damaged/` so that their step can be saved again. What a killed run left unfinished is removed. For the one
        that is going to write.

        Args:
          template: a state of the same structure, shapes and dtypes (values do not matter).

        Raises:
          InputError: no checkpoint is readable although there are or were some, or the newest has another structure,
            or was trained beside other held arrays; nothing is overwritten.
        """
        lead = jax.process_index() == 0
        if lead:
            self._remove_unfinished()
        found = self._newest(_items(template))
        if found is None:
            return None
        step, items, meta, complaint, lost, damaged = found
        if meta.get("held") != self._held:
            raise InputError(
                f"checkpoint {step} in {self.directory} was trained beside other held arrays than those of now; "
                "restore held.safetensors from a copy, or begin from it in another work directory: --from"
            )
        if complaint:
            again = f"{lost} steps are made again" if lost else "no step is lost"
            self._report(f"{complaint}; going on from step {step}: {again}")
        if lead and damaged:
            moved = [self._set_aside(other) for other in damaged]
            self._report(f"moved to {moved[0].parent}: {', '.join(folder.name for folder in moved)}")
        self._run = self._run or meta.get("run") or secrets.token_hex(16)
        if lead:
            manifest.write_ledger(self._ledger_file, Ledger(self._run, step))
        averages = {name: items[AVERAGE.format(name)] for name in template.averages}
        state = TrainState(np.int32(step), items["params"], items["ema"], **items["progress"], averages=averages)
        return state, meta["position"]

    def restore(self, item: str, template: Tree, step: int | None = None) -> tuple[int, Tree]:
        """One item alone, of `step`, or of the newest undamaged checkpoint: (step, tree of NumPy arrays).

        Damaged and missing ones that were newer are reported.

        Args:
          item: "params", "ema", or an `AVERAGE`.
          template: a tree of the same structure, shapes and dtypes.
          step: of the checkpoint; None for the newest.

        Raises:
          InputError: there is no such checkpoint, it is damaged, or it has another structure.
        """
        if step is None:
            found = self._newest({item: template})
            if found is None:
                raise InputError(f"there is no checkpoint in {self.directory}; train first, or check --workdir")
            if found.complaint:
                self._report(f"{found.complaint}; taking that of step {found.step}")
            return found.step, found.items[item]
        steps = self.steps()
        if step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise InputError(f"there is no checkpoint of step {step}; there are {known}")
        self._run = (self._remembered() or Ledger(None, 0)).run
        try:
            items, _ = self._read(step, {item: template})
        except DamagedError as error:
            others = ", ".join(str(s) for s in steps if s != step) or "none"
            raise InputError(
                f"checkpoint {step} in {self.directory} is damaged ({error}); others: {others} (--step)"
            ) from error
        return step, items[item]

    def wait(self) -> None:
        """Return when the last save is on disk; `RunError` if it could not be written."""
        save, self._save = self._save, None
        if save is not None:
            self._writing(save.result)

    def close(self) -> None:
        """`wait`, and let go of the folder."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._checkpointer.close()

    def _folder(self, step: int) -> Path:
        return self.directory / str(step)

    def _remembered(self) -> Ledger | None:
        """The ledger; None where there is none, or where it is damaged, which is reported."""
        try:
            return manifest.read_ledger(self._ledger_file)
        except DamagedError as error:
            if not self.steps():
                raise InputError(
                    f"{self._ledger_file} is damaged ({error}), and there is no checkpoint; "
                    "restore them from a copy, or start again in another work directory"
                ) from error
            self._report(f"{self._ledger_file} is damaged ({error}); it is taken from the newest checkpoint")
            return None

    def _newest(self, templates: dict) -> _Found | None:
        """The newest undamaged checkpoint, or None if there never was one."""
        ledger = self._remembered()
        self._run = ledger and ledger.run
        bad: dict[int, str] = {}
        # Listed anew each time: a run that writes beside this process removes the oldest.
        while left := [step for step in self.steps() if step not in bad]:
            step = left[-1]
            try:
                items, meta = self._read(step, templates, *bad.values())
            except DamagedError as error:
                if step in self.steps():
                    bad[step] = f"checkpoint {step} in {self.directory} is damaged ({error})"
                continue
            newest = ledger.newest if ledger else max([step, *bad])
            complaint = [*bad.values()]
            if newest > step and newest not in bad:
                complaint.append(f"checkpoint {newest} in {self.directory} is gone")
            if ledger is None and manifest.DIGEST in meta and not self._ledger_file.exists():
                complaint.append(f"{self._ledger_file} is gone, so that newer checkpoints are not missed")
            return _Found(step, items, meta, "; ".join(complaint), max(0, newest - step), [*bad])
        if bad:
            some = "; ".join([*bad.values()][:3])
            raise InputError(
                f"no checkpoint in {self.directory} can be read ({len(bad)} tried: {some}); "
                "restore them from a copy, or start again in another work directory"
            )
        if ledger:
            raise InputError(
                f"the checkpoints in {self.directory} are gone, up to that of step {ledger.newest}; "
                "restore them from a copy, or start again in another work directory"
            )
        return None

    def _read(self, step: int, templates: dict, *before: str):
        """(items, manifest) of one checkpoint; `before` is what to say first where it has another structure."""
        meta = self._load(step, meta=ocp.args.JsonRestore())["meta"]
        manifest.check(meta, step, self._run)
        arguments = {name: ocp.args.StandardRestore(jax.tree.map(_empty, tree)) for name, tree in templates.items()}
        for name, tree in templates.items():
            there, here = meta.get("arrays", {}).get(name), manifest.kinds(tree)
            if "arrays" in meta and there != here:
                raise self._other(step, name, manifest.difference(there or {}, here) or "", before)
            if name not in meta["crc32"]:
                raise self._other(step, name, " is not there", before)
        try:
            items = self._load(step, **arguments)
            for name, tree in templates.items():
                found, expected = manifest.checksums(items[name]), meta["crc32"][name]
                wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
                if wrong:
                    raise DamagedError(f"{name}{wrong[0]} differs from its checksum")
                if manifest.kinds(items[name]) != manifest.kinds(tree):
                    raise DamagedError(f"{name} has other shapes")
        except DamagedError:
            if "arrays" not in meta:
                self._check_structure(step, templates, meta, before)
            raise
        return items, meta

    def _check_structure(self, step: int, templates: dict, meta: dict, before):
        """Raise `InputError` if a checkpoint from before there were digests is whole, and of another structure."""
        for name, tree in templates.items():
            raw, expected = self._load(step, **{name: ocp.args.StandardRestore()})[name], meta["crc32"][name]
            whole = sorted(manifest.checksums(raw).values()) == sorted(expected.values())
            there, here = (sorted(manifest.kinds(x).values()) for x in (raw, tree))
            name_there, name_here = (dict.fromkeys(x, "") for x in (expected, manifest.kinds(tree)))
            if whole and (name_there != name_here or there != here):
                other = manifest.difference(name_there, name_here) or " has arrays of other shapes or types"
                raise self._other(step, name, other, before)

    def _other(self, step: int, name: str, difference: str, before) -> InputError:
        complaints = "".join(f"{line}; " for line in before)
        return InputError(
            f"{complaints}checkpoint {step} in {self.directory} is of another network or optimiser "
            f"({name}{difference}); "
            "train with what it was made with, or in another work directory"
        )

    def _load(self, step: int, **arguments) -> dict:
        folder = self._folder(step)
        try:
            for path in [folder, *folder.rglob("*")]:
                if not (path.is_dir() or path.is_file()):
                    raise DamagedError(f"{path.name} is not a file")
            restored = self._checkpointer.restore(folder, args=ocp.args.Composite(**arguments))
            return {name: restored[name] for name in arguments}
        except DamagedError:
            raise
        except Exception as error:  # Orbax, TensorStore and JSON raise whatever they find; all mean the same
            raise DamagedError(_first_line(error, 120)) from error

    def _set_aside(self, step: int) -> Path:
        target = self.directory.with_name("damaged") / str(step)
        target.parent.mkdir(exist_ok=True)
        while target.exists() or target.is_symlink():
            target = target.with_name(target.name + "_")
        self._folder(step).rename(target)
        return target

    def _remove_unfinished(self):
        for pattern in UNFINISHED:
            for path in self.directory.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def _finish(self, step: int):
        """Finish the save of `step`; runs in a thread."""
        self._checkpointer.wait_until_finished()
        if jax.process_index() == 0:
            for old in self.steps()[: -self._keep] if self._keep else ():
                removed = self.directory / f".removed_{old}"
                self._folder(old).rename(removed)  # at once: half a checkpoint would be a damaged one
                shutil.rmtree(removed, ignore_errors=True)
            manifest.write_ledger(self._ledger_file, Ledger(self._run, step))

    def _writing(self, write):
        try:
            write()
        except Exception as error:
            reason = _first_line(error, 160)
            raise RunError(
                f"cannot write a checkpoint ({reason}); free disk space and give the same command again"
            ) from error


@functools.cache
def _hush():
    """Keep Orbax from logging every file it opens, and tracebacks of its threads: what they met is raised as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def hook(unraisable):
        # Where one of several reads has failed, TensorStore tells of the others when no one waits for them any more.
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _first_line(error: Exception, most: int) -> str:
    return str(error).strip().splitlines()[0][:most] if str(error).strip() else repr(error)


def _empty(leaf):
    return np.empty(np.shape(leaf), leaf.dtype)
