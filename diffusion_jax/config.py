"""Configs: short Python files with `get_config() -> ConfigDict` (values) and `build(config) -> Experiment` (parts).

Values may be overridden on the command line; parts are composed in Python, in the file. A config file is
code of the user's own: it is executed.
"""

import difflib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict, config_flags

from diffusion_jax.errors import InputError

# These say how long a run goes on and what it tells on the way, not what it computes.
FREE = (
    "train.steps",
    "train.steps_per_call",
    "train.accumulate",
    "train.fsdp",
    "model.flash",
    "log.",
    "data.dir",
    "data.threads",
)

# These have come since runs were first kept, and do change what is computed: the value of a run that has none.
SINCE = {"train.ema_decays": [], "train.ema_profiles": []}


def load(path) -> ModuleType:
    """Execute the config file at `path`; a module with `get_config` and `build`.

    Raises:
      InputError: there is no such file, it cannot be imported, or it lacks one of the two.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(p.as_posix() for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(near)}" if near else ""
        raise InputError(f"there is no config file {path}{hint}")
    spec = importlib.util.spec_from_file_location(f"diffusion_jax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise InputError(f"cannot import the config file {path}: {error}") from error
    for name in ("get_config", "build"):
        if not callable(getattr(module, name, None)):
            raise InputError(f"the config file {path} has no function {name}; see configs/digits.py for one")
    return module


def override(config: ConfigDict, arguments: list[str]) -> ConfigDict:
    """`config` with command-line values, `--config.train.batch_size=64`, each of the type it replaces.

    Raises:
      InputError: an unknown key (the nearest known one is named), a value of the wrong type, or another flag.
    """
    config = config.copy_and_resolve_references().lock()
    known = sorted(flatten(config.to_dict()))
    for argument in arguments:
        name = argument.split("=")[0]
        if not name.startswith("-"):
            continue  # the value of the flag before it
        if not name.lstrip("-").startswith("config."):
            raise InputError(f"unknown flag {name}; --help lists them")
        key = name.lstrip("-").removeprefix("config.")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.3) or known[:1]
            raise InputError(f"unknown config key {key}; did you mean {near[0]}?")
    values = flags.FlagValues()
    command = ["config", *arguments]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=command)
    try:
        rest = values(command)[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(f"bad config value: {' '.join(str(error).split())}") from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]}; config values are given as --config.train.steps=1000")
    return values["config"].value


def flatten(tree: dict, prefix: str = "") -> dict:
    """{"train": {"steps": 1}} -> {"train.steps": 1}."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def completed(stored: dict, ours: dict) -> dict:
    """The flat values `stored` of a run, with those of `ours` that have come since at what held then."""
    return {key: value for key, value in SINCE.items() if key in ours} | stored


def to_json(config: ConfigDict) -> dict:
    """Plain values, as they come back from a JSON file (tuples have become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def from_json(config: ConfigDict, stored: dict) -> ConfigDict:
    """`config` with the values of `stored`, as `to_json` made them, each of the type it replaces.

    Raises:
      InputError: the stored keys are not those of `config`: the config file has changed since.
    """
    ours = flatten(config.to_dict())
    theirs = completed(flatten(stored), ours)
    # What does not change a run's results may have come since; it has its default then.
    differing = [key for key in sorted(ours.keys() ^ theirs.keys()) if key in theirs or not key.startswith(FREE)]
    if differing:
        differing = ", ".join(differing)
        raise InputError(f"the config file has other keys than the run had ({differing}); use that version of it")
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(
        {key: tuple(value) if isinstance(value, list) else value for key, value in theirs.items()}
    )
    return config.lock()


def line(message: str):
    """One line to the person at the terminal, on standard error."""
    print(message, file=sys.stderr, flush=True)
