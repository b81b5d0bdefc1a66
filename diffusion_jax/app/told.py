"""What samples are told, from the command line: labels, texts, pictures and numbers, by their names."""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from diffusion_jax.app import prompts, resolve, shown
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import numpy_files


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of what samples are told; a label is of `resolve.add_drawing`."""
    parser.add_argument(
        "--condition",
        action="append",
        metavar="WHAT",
        help="what to tell the samples: NAME=0.3, NAME=1,2 (each in turn), an .npz of arrays by name, or "
        "NAME=FILE.npz, its one array as NAME (low_res=.../samples.npz: enlarge what another model drew)",
    )
    prompts.add_options(parser)
    shown.add_options(parser)


def names(options: argparse.Namespace) -> list[str]:
    """Those of `add_options` that are given."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return [name for name in vars(parser.parse_args([])) if getattr(options, name)]


def given(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """What the person tells the samples, name -> array.

    Raises:
      InputError: as of `prompts.given`, `shown.given`, `resolve.numbers` and `numpy_files.arrays`; one name is given
        twice; or a file that is given a name has several arrays.
    """
    found = resolve.labels(options.label) | prompts.given(options) | shown.given(options)
    for text in options.condition or ():
        named = _named(text)
        read = _array(*named) if named else resolve.numbers(text) or numpy_files.arrays(text)
        if twice := sorted(found.keys() & read.keys()):
            raise InputError(f"--condition {text[:100]}: {twice[0]} is given already; give it once")
        found |= read
    return found


def tag(texts: Sequence[str]) -> str:
    """What `--condition` is given, as a part of a folder's name."""

    def one(text):
        if named := _named(text):
            name, path = named
            return f"{name}={Path(path).stem}"
        return text if "=" in text else Path(text).stem

    return "_".join(map(one, texts))


def _named(text: str) -> tuple[str, str] | None:
    """(NAME, FILE.npz) of NAME=FILE.npz; None for another text, and where a file has that name."""
    name, _, path = text.partition("=")
    return (name, path) if name.isidentifier() and Path(path).suffix == ".npz" and not Path(text).is_file() else None


def _array(name: str, path: str) -> dict[str, np.ndarray]:
    found = numpy_files.arrays(path)
    if name not in found and len(found) != 1:
        raise InputError(f"{path} has the arrays {', '.join(sorted(found))}; give a file with one, or with {name}")
    return {name: found.get(name, next(iter(found.values())))}


def digests(given: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The same as name -> "how many, SHA-256 of them in order": for records of how samples were drawn."""
    lists = {name: np.atleast_1d(x) for name, x in given.items()}
    return {name: f"{len(x)}, sha256 {_digest(x)}" for name, x in lists.items()}


def _digest(array: np.ndarray) -> str:
    found = hashlib.sha256()
    for entry in array:
        if isinstance(entry, str):
            found.update(json.dumps(entry).encode())  # quoted, so that no two lists of texts look the same
        else:
            x = np.asarray(entry)
            found.update(f"{x.dtype} {x.shape}".encode())
            found.update(x.tobytes())
    return found.hexdigest()
