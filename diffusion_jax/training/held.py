"""What a run holds: arrays that it has read once, when it began, and never trains (`Task.held`).

DIR/held.safetensors has them by their places, "teacher/down_0/kernel", and a digest of them all. Every checkpoint
records the digest. So a run resumes with the arrays that it began with, wherever its directory is moved, or it
refuses.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold
from diffusion_jax.pretrained.formats import safetensors_file
from diffusion_jax.training import arrays_file, manifest

FILE = "held.safetensors"
DIGEST = "sha256"


def load(workdir: Path, make: Hold) -> dict:
    """What the run in `workdir` holds, NumPy arrays: as its file has it, or what `make()` gives where there is none.

    Raises:
      InputError: the file is damaged; or `make` gives something else than a nested dictionary of arrays, with names
        without "/", of types that a file of safetensors has.
    """
    path = workdir / FILE
    return _read(path) if path.exists() else _checked(make())


def save(workdir: Path, tree: Mapping):
    """Write the held arrays of a new run atomically. An existing file stays; without arrays no file is written.

    Raises:
      RunError: it cannot be written (a full disk).
    """
    arrays, path = _named(tree), workdir / FILE
    if not arrays or path.exists():
        return
    arrays[DIGEST] = np.frombuffer(bytes.fromhex(digest(tree) or ""), np.uint8)
    arrays_file.write(path, arrays)


def digest(tree: Mapping) -> str | None:
    """SHA-256 of names, types, shapes and CRC-32 of the arrays; None where there are none."""
    if not jax.tree.leaves(tree):
        return None
    listed = [sorted(of(tree).items()) for of in (manifest.kinds, manifest.checksums)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _read(path: Path) -> dict:
    stored = safetensors_file.load(path)
    kept_digest = stored.pop(DIGEST, None)
    tree: dict = {}
    for name, array in stored.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = np.asarray(array)
    if kept_digest is None or np.asarray(kept_digest).tobytes().hex() != digest(tree):
        raise InputError(f"{path} is damaged; restore it from a copy, or start again in another work directory")
    return tree


def _checked(tree) -> dict:
    for name, array in _named(tree).items():
        if array.dtype not in safetensors_file.DTYPES.values():
            raise InputError(f"what the run holds has {name} of {array.dtype}; give float, integer or bool arrays")
    return jax.tree.map(np.asarray, tree)


def _named(tree) -> dict[str, np.ndarray]:
    found = {}
    for path, leaf in jax.tree.flatten_with_path(tree)[0]:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        if not names or len(names) < len(path) or not all(isinstance(n, str) and "/" not in n for n in names):
            where = jax.tree_util.keystr(path)
            raise InputError(f"what the run holds is no nested dictionary of arrays at {where!r}")
        found["/".join(names)] = np.asarray(leaf)
    return found
