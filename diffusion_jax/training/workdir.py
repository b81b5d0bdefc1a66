"""A work directory: one experiment's config, checkpoints, metrics and pictures, and nobody else's.

    DIR/config.json       the config's values and where its file was
    DIR/checkpoints/      Orbax; the last few
    DIR/checkpoints.json  whose they are, and the newest that was complete (`training.manifest`)
    DIR/damaged/          checkpoints that could not be read, if there were any
    DIR/averages/         snapshots of averages, if the config asks for some (`training.snapshots`)
    DIR/metrics.jsonl     a JSON object a line
    DIR/tensorboard/      the same scalars, and the preview grids
    DIR/samples/          pictures
"""

import contextlib
import fcntl
import json
from pathlib import Path

from ml_collections import ConfigDict

from diffusion_jax import config as configs
from diffusion_jax import files
from diffusion_jax.errors import InputError


def claim(workdir: Path, config: ConfigDict, config_file: Path | None):
    """Make `workdir` the home of `config`, or check that it is. Keys in `config.FREE` may differ, and are updated.

    `config_file` is noted, for `open_existing` to find.

    Raises:
      InputError: it belongs to another config (the differing keys are named), or cannot be written.
    """
    stored_file = workdir / "config.json"
    values = configs.to_json(config)
    if stored_file.exists():
        ours = configs.flatten(values)
        stored = configs.completed(configs.flatten(_read(stored_file)["config"]), ours)
        different = [
            f"{key} = {stored.get(key)!r} there, {ours.get(key)!r} here"
            for key in sorted(stored.keys() | ours.keys())
            if stored.get(key) != ours.get(key) and not key.startswith(configs.FREE)
        ]
        if different:
            raise InputError(
                f"{workdir} belongs to another config ({'; '.join(different)}); "
                "give the values it was started with, or another --workdir"
            )
    text = json.dumps({"config_file": str(config_file or ""), "config": values}, indent=1) + "\n"
    files.write(stored_file, lambda file: file.write(text.encode()))


def open_existing(workdir: Path, config_file: Path | None = None):
    """The config module and the config of an existing run: (module, config).

    The config's *file* is the user's own code, named by `config_file` or found where it was when the run
    started. A file inside the work directory is never executed: such a directory may have been downloaded.

    Raises:
      InputError: not a work directory, or the config's file is not found.
    """
    stored_file = workdir / "config.json"
    if not stored_file.is_file():
        raise InputError(f"{workdir} is not a work directory (no config.json); give the one that was trained in")
    stored = _read(stored_file)
    path = Path(config_file or stored["config_file"])
    if config_file is None and path.resolve().is_relative_to(workdir.resolve()):
        raise InputError(f"refusing to execute {path} from inside the work directory; pass --config if you trust it")
    if config_file is None and not path.is_file():
        raise InputError(f"the run's config file {str(path)!r} is not here; run where it is, or pass --config")
    module = configs.load(path)
    return module, configs.from_json(module.get_config(), stored["config"])


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
        raise InputError(f"cannot write to {workdir} ({error.strerror}); choose another --workdir") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another run is using {workdir}; wait for it, or choose another --workdir") from error
        except OSError as error:  # some network file systems have no locks
            configs.line(f"{workdir} cannot be locked ({error.strerror}); take care that no other run uses it")
        yield


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}); restore it, or choose another work directory") from error
