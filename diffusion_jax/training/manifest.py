"""The manifest of a checkpoint, under one digest, and the work directory's record of its checkpoints.

A manifest is JSON: the step, the run, the data's position, and of every array of every item its name, dtype, shape
and CRC-32. Its SHA-256 is over all of that, so that no part can be altered, exchanged or renamed by itself.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.core import files
from diffusion_jax.core.protocols import Tree

DIGEST = "sha256"
BEFORE = {"position", "crc32"}  # keys of a manifest before there were digests


class DamagedError(Exception):
    """What was read is not what was written."""


def make(step: int, run: str, position: Any, items: Mapping[str, Any], held: str | None = None) -> dict:
    """The manifest of `items`, name -> tree of NumPy arrays; `held` is the digest of what the run holds."""
    written = {
        "step": step,
        "run": run,
        "position": position,
        "crc32": {name: checksums(tree) for name, tree in items.items()},
        "arrays": {name: kinds(tree) for name, tree in items.items()},
    }
    return signed(written | ({"held": held} if held else {}))


def check(manifest: Any, step: int, run: str | None) -> None:
    """Raise `DamagedError` unless `manifest` is what was written, at `step`, by `run` (None: by any).

    One of before there were digests passes, as far as it goes.
    """
    if not isinstance(manifest, dict):
        raise DamagedError("its manifest is not a dictionary")
    if manifest.keys() == BEFORE:
        return
    check_signed(manifest, "its manifest")
    if manifest["step"] != step:
        raise DamagedError(f"it is the checkpoint of step {manifest['step']}")
    if run is not None and manifest["run"] != run:
        raise DamagedError("it is of another run")


def checksums(tree: Tree) -> dict[str, int]:
    """The CRC-32 of every array by its name."""
    flat = {name: np.ascontiguousarray(leaf).reshape(-1) for name, leaf in named(tree)}
    return {name: zlib.crc32(leaf.view(np.uint8).data) for name, leaf in flat.items()}


def kinds(tree: Tree) -> dict[str, str]:
    """What every array is by its name: "float32[64,32]"."""
    return {name: f"{leaf.dtype}[{','.join(map(str, np.shape(leaf)))}]" for name, leaf in named(tree)}


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """The first array that two `kinds` differ in, for a person; None where they are the same."""
    for name in [*here, *there]:
        if name not in there or name not in here:
            return f"{name} is {'here' if name in here else 'there'} alone"
        if there[name] != here[name]:
            return f"{name} is {there[name]} there, {here[name]} here"
    return None


def named(tree: Tree) -> list[tuple[str, Any]]:
    """The leaves with their places in the tree: "['down_0']['kernel']"."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def signed(content: dict) -> dict:
    """`content` (JSON) with its digest."""
    content = json.loads(json.dumps(content))  # as it will be read
    return content | {DIGEST: _digest(content)}


def check_signed(content: dict, what: str):
    """Raise `DamagedError` unless `content` is as `signed` made it."""
    if content.get(DIGEST) != _digest({key: value for key, value in content.items() if key != DIGEST}):
        raise DamagedError(f"{what} differs from its digest")


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Ledger(NamedTuple):
    """What a work directory remembers of its checkpoints, beside them.

    Attributes:
      run: whose checkpoints they are; a random name, or None where it is unknown.
      newest: the step of the last one that was complete.
    """

    run: str | None
    newest: int


def read_ledger(path: Path) -> Ledger | None:
    """The ledger at `path`; None where there is none.

    Raises:
      DamagedError: it is not what was written.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError("it cannot be read") from error
    if not isinstance(content, dict):
        raise DamagedError("it is not a dictionary")
    check_signed(content, "it")
    return Ledger(content["run"], content["newest"])


def write_ledger(path: Path, ledger: Ledger):
    """Raises `InputError` where it cannot be written."""
    text = json.dumps(signed(ledger._asdict())) + "\n"
    files.write(path, lambda file: file.write(text.encode()))
