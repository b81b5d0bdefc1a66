"""Configs: short Python files with `get_config() -> Config` (values) and `build(config) -> Experiment` (parts).

A file may also say where the numbers of a run go, `writers(config, workdir) -> [Writer, ...]` (`training.writers`),
and what is done now and then, `hooks(config, workdir) -> [Hook, ...]` (`training.hooks`).
Values may be overridden on the command line, and are checked by their descriptions (`values`); parts are composed in
Python, in the file. A config file is code of the user's own: it is executed.
"""

import difflib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.config import elsewhere, values
from diffusion_jax.config.values import Config
from diffusion_jax.core import user_files
from diffusion_jax.core.errors import InputError

# These say how long a run goes on and what it tells on the way, not what it computes.
FREE = (
    "train.steps",
    "train.steps_per_call",
    "train.accumulate",
    "train.fsdp",
    "model.flash",
    "distill.teacher",
    "log.",
    "data.dir",
    "data.threads",
)

# These have come since runs were first kept, and do change what is computed: the value of a run that has none.
SINCE = {"train.ema_decays": [], "train.ema_profiles": [], "train.decay_steps": 0, "train.final_rate": 0.0}

# These have left the configs where they had no effect; with another value they had one.
GONE = {"data.dir": "", "data.flip": False}


def load(path: str | Path) -> ModuleType:
    """Execute the config file at `path`; a module with `get_config` and `build`.

    Raises:
      InputError: there is no such file, it cannot be imported, or it lacks one of the two.
    """
    return user_files.load(path, "config file", "get_config", "build", remedy="see configs/digits.py for one")


def defaults(module: ModuleType) -> Config:
    """The values that the config file itself gives, checked.

    Raises:
      InputError: one of them is not what it may be, or has no description and nearly the name of one that has.
    """
    config = module.get_config()
    if not isinstance(config, ConfigDict):
        raise InputError(f"get_config of {module.__file__} gives {type(config).__name__}; give a values.Config")
    described = {key: bool(about.about) for key, _, about in values.walk(config)}
    known = [key for key, yes in described.items() if yes]
    for key in (key for key, yes in described.items() if not yes):
        if near := difflib.get_close_matches(key, known, n=1, cutoff=0.9):
            raise InputError(
                f"{module.__file__} sets {key}, which nothing reads; did you mean {near[0]}? "
                "A value of your own is declared with a description: values.count(1, 'what it is')"
            )
    return values.checked(config, where=f"{module.__file__}: ")


def override(config: ConfigDict, arguments: list[str]) -> Config:
    """`config` with command-line values, `--config.train.batch_size=64`, checked and locked.

    Raises:
      InputError: an unknown key (the nearest known one is named), what a value may not be, or another flag.
    """
    known = {key: about for key, _, about in values.walk(config)}
    changes, rest = {}, list(arguments)
    while rest:
        name, equals, given = rest.pop(0).partition("=")
        if not name.startswith("-"):
            raise InputError(f"unexpected argument {name}; config values are given as --config.train.steps=1000")
        if not name.lstrip("-").startswith("config."):
            raise InputError(f"unknown flag {name}; {elsewhere.remedy([name])}--help lists them")
        key = name.lstrip("-").removeprefix("config.")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.3) or sorted(known)[:1]
            raise InputError(f"unknown config key {key}; did you mean {near[0]}?")
        if not equals:  # the next argument is the value, or a flag stands for itself
            given = rest.pop(0) if rest and not rest[0].startswith("-") else "true"
        try:
            changes[key] = known[key].kind.read(given)
        except values.REFUSALS:
            shown = given if given.isprintable() and len(given) <= 80 else values.short(given)
            raise values.refusal(key, shown, known[key]) from None
    return values.checked(config, changes)


def flatten(tree: dict, prefix: str = "") -> dict:
    """{"train": {"steps": 1}} -> {"train.steps": 1}.

    Raises:
      InputError: it is nested deeper than any config.
    """
    if prefix.count(".") > 16:
        raise InputError("the values are nested more than 16 deep, as no config's are; restore the file")
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def completed(stored: dict, ours: dict) -> dict:
    """The flat values `stored` of a run, with those of `ours` that have come since at what held then, less `GONE`."""
    kept = {key: value for key, value in stored.items() if key in ours or GONE.get(key, ()) != value}
    return {key: value for key, value in SINCE.items() if key in ours} | kept


def to_json(config: ConfigDict) -> dict:
    """Plain values, as they come back from a JSON file (tuples have become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def from_json(config: ConfigDict, stored: dict, where: str = "") -> Config:
    """`config` with the values of `stored`, as `to_json` made them, checked and locked.

    Args:
      config: with the keys that there are now.
      stored: nested values, of any type.
      where: they come from, for messages.

    Raises:
      InputError: the stored keys are not those of `config` (the config file has changed since), or a value is not
        what it may be.
    """
    ours = flatten(config.to_dict())
    theirs = completed(flatten(stored), ours)
    # What does not change a run's results may have come since; it has its default then.
    differing = [key for key in sorted(ours.keys() ^ theirs.keys()) if key in theirs or not key.startswith(FREE)]
    if differing:
        some = ", ".join(key if key in ours else values.short(key) for key in differing[:4])
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"{where}the config file has other keys than the run had ({some}{more}); use that version of it, or "
            "restore config.json"
        )
    return values.checked(config, theirs, where)
