"""A work directory: one experiment's config, checkpoints, metrics and pictures, and nobody else's.

DIR/config.json       the config's values, where its file was, and the parent of a fork
DIR/checkpoints/      Orbax; the last few
DIR/checkpoints.json  whose they are, and the newest that was complete (`training.manifest`)
DIR/damaged/          checkpoints that could not be read, if there were any
DIR/held.safetensors  what the run holds and does not train, if it holds something (`training.held`)
DIR/averages/         snapshots of averages, if the config asks for some (`training.snapshots`)
DIR/metrics.jsonl     a JSON object a line
DIR/tensorboard/      the same scalars, and the preview grids
DIR/samples/          pictures
"""

import contextlib
import fcntl
import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from diffusion_jax import config as configs
from diffusion_jax.config.values import MOST, REFUSALS, Text, Truth, Whole, short
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line

LARGEST = 2**20  # of a config.json, in bytes
SHOWN = 4  # differences in a message


class Parent(NamedTuple):
    """Where a fork began (`training.fork`): a work directory, a step of it, and whether its optimiser began anew."""

    workdir: str
    step: int
    fresh_optimizer: bool = False


def claim(
    workdir: Path,
    config: ConfigDict,
    config_file: Path | None,
    parent: Parent | None = None,
    fixed: Collection[str] = (),
):
    """Make `workdir` the home of `config`, or check that it is. Keys in `config.FREE` may differ, and are updated.

    `config_file` is noted, for `open_existing` to find, and so are the `parent` and how its values differ.

    Args:
      workdir: made if absent.
      config: the values of the run.
      config_file: where they come from.
      parent: that it begins from, if it does.
      fixed: keys that may not differ although they are in `config.FREE`, because the results depend on them.

    Raises:
      InputError: it belongs to another config (the differing keys are named), or cannot be written.
    """
    stored_file = workdir / "config.json"
    values = configs.to_json(config)
    record = {}
    if parent is not None:
        record["parent"] = parent._asdict() | {"differs": _differing(values_of(Path(parent.workdir)), values)}
    if stored_file.exists():
        ours = configs.flatten(values)
        before = _read(stored_file)
        record = {"parent": before["parent"]} if "parent" in before else {}
        stored = configs.completed(configs.flatten(before["config"]), ours)
        different = [
            f"{key if key in ours else short(key)} = {short(stored.get(key))} there, {short(ours.get(key))} here"
            for key in sorted(stored.keys() | ours.keys())
            if stored.get(key) != ours.get(key) and (key in fixed or not key.startswith(configs.FREE))
        ]
        if different:
            more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
            raise InputError(
                f"{workdir} belongs to another config ({'; '.join(different[:SHOWN])}{more}); "
                f"give the values it was started with, or go on with these elsewhere: --from {workdir} --workdir NEW"
            )
    text = json.dumps({"config_file": str(config_file or ""), "config": values} | record, indent=1) + "\n"
    files.write(stored_file, lambda file: file.write(text.encode()))


def open_existing(workdir: Path, config_file: Path | None = None):
    """The config module and the config of an existing run: (module, config).

    The config's *file* is the user's own code, named by `config_file` or found where it was when the run
    started. A file inside the work directory is never executed: such a directory may have been downloaded.

    Raises:
      InputError: not a work directory, or the config's file is not found.
    """
    stored_file = workdir / "config.json"
    stored = _existing(workdir)
    path = Path(config_file or stored["config_file"])
    if config_file is None and path.resolve().is_relative_to(workdir.resolve()):
        raise InputError(f"refusing to execute {path} from inside the work directory; pass --config if you trust it")
    if config_file is None and not path.is_file():
        raise InputError(f"the run's config file {str(path)!r} is not here; run where it is, or pass --config")
    module = configs.load(path)
    return module, configs.from_json(configs.defaults(module), stored["config"], where=f"{stored_file}: ")


def values_of(workdir: Path) -> dict:
    """The values of an existing run, nested, as they stand in its config.json.

    Raises:
      InputError: not a work directory, or a damaged one.
    """
    return _existing(workdir)["config"]


def parent_of(workdir: Path) -> Parent | None:
    """Where the run in `workdir` began; None where there is no run, or one that has no parent.

    Raises:
      InputError: its config.json is damaged.
    """
    if not (workdir / "config.json").exists():
        return None
    record = _read(workdir / "config.json").get("parent")
    if record is None:
        return None
    try:
        folder, step, fresh = (record[name] for name in Parent._fields)
        return Parent(Text().take(folder), Whole(0, MOST).take(step), Truth().take(fresh))
    except REFUSALS as error:
        raise InputError(f"the parent that {workdir / 'config.json'} names is damaged; restore the file") from error


@contextlib.contextmanager
def locked(workdir: Path, host: int = 0):
    """Hold `workdir` for this process (one for each host); the lock goes with it, however it ends.

    A file system without locks is used without, and a line says so.

    Raises:
      InputError: another process holds it, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / f".lock{host}", "a")  # noqa: SIM115 (closed just below)
    except OSError as error:
        raise InputError(f"cannot write to {workdir} ({error.strerror}); choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another run is using {workdir}; wait for it, or choose another folder") from error
        except OSError as error:  # some network file systems have no locks
            line(f"{workdir} cannot be locked ({error.strerror}); take care that no other run uses it")
        yield


def _existing(workdir: Path) -> dict:
    if not (workdir / "config.json").is_file():
        raise InputError(f"{workdir} is not a work directory (no config.json); give the one that was trained in")
    return _read(workdir / "config.json")


def _differing(theirs: dict, ours: dict) -> dict[str, list]:
    """Key -> [value there, value here], of those that differ; None where there is none."""
    here = configs.flatten(ours)
    there = configs.completed(configs.flatten(theirs), here)
    keys = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    return {key: [there.get(key), here.get(key)] for key in keys}


def _read(path: Path) -> dict:
    """{"config_file": text, "config": nested values of any type}, and perhaps "parent", of any type."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise ValueError(f"it is no file of at most {LARGEST:,} bytes")
        stored = json.loads(path.read_text())
        if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
            raise ValueError("it has no values under 'config'")
        Text().take(stored.get("config_file"))
    except (OSError, ValueError, RecursionError) as error:
        reason = short(str(error) or "the config file that it names is no path")
        raise InputError(f"cannot read {path} ({reason}); restore it, or choose another work directory") from error
    return stored
