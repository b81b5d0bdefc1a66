"""Snapshots of averages of power-function profiles, and averages made of them after training (`averages.mixture`).

A snapshot is a file of safetensors, DIR/sigma_rel_0.05_00003000.safetensors: the parameters by their places in the
tree, "down_0/conv/kernel", after 3000 updates, "crc32" of each of them, in the file's order, and "sha256" of all that
and of sigma_rel and the step. Snapshots stay, however few checkpoints are kept.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import Tree
from diffusion_jax.pretrained.formats import safetensors_file
from diffusion_jax.training import arrays_file, averages

NAME = re.compile(r"sigma_rel_([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)_([0-9]{8,10})\.safetensors")
CRC = "crc32"
DIGEST = "sha256"


class Snapshot(NamedTuple):
    """The average of profile `sigma_rel` after `step` updates, in a file."""

    path: Path
    sigma_rel: float
    step: int

    def arrays(self) -> dict[str, Any]:
        """Its arrays, still in the file, and their CRC-32, under `CRC`."""
        return safetensors_file.load(self.path)


class Reconstruction(NamedTuple):
    """An average made of snapshots: a tree of NumPy arrays, the step it is of, and how it was mixed."""

    params: Any
    step: int
    mixture: averages.Mixture


def found(folder: Path) -> list[Snapshot]:
    """The snapshots in `folder`, by step and sigma_rel; none where there is no such folder."""
    names = ((path, NAME.fullmatch(path.name)) for path in folder.glob("*.safetensors"))
    named = [Snapshot(path, float(name[1]), int(name[2])) for path, name in names if name]
    some = [snapshot for snapshot in named if snapshot.path.name == _name(snapshot.sigma_rel, snapshot.step)]
    return sorted(some, key=lambda snapshot: (snapshot.step, snapshot.sigma_rel))


def save(folder: Path, sigma_rel: float, step: int, params: Tree) -> Path:
    """Write the average `params` as a snapshot; the file appears whole or not at all.

    A resumed run writes its last snapshots again. A file with the same values stays. One with other values is moved
    aside, and a line reports it.

    Raises:
      RunError: the file cannot be written (a full disk).
    """
    path = folder / _name(sigma_rel, step)
    arrays = {name: np.asarray(leaf) for name, leaf in _named(params)}
    sums = np.array([_crc(array) for array in arrays.values()], np.int64)
    if path.exists():
        if _same(path, sigma_rel, step, arrays, sums):
            return path
        aside = _aside(path)
        path.rename(aside)
        line(f"the snapshot {path.name} was there with other values; moved to {aside}")
    digest = _digest(sigma_rel, step, arrays, sums)
    arrays |= {CRC: sums, DIGEST: digest}
    arrays_file.write(path, arrays)
    return path


def post_hoc(snapshots: Iterable[Snapshot], sigma_rel: float, step: int | None, template: Tree) -> Reconstruction:
    """The average of profile `sigma_rel` after `step` updates, made of snapshots (EDM2, algorithm 3).

    Arrays are read one by one, and summed in float64.

    Args:
      snapshots: of one run.
      sigma_rel: of the profile that is wanted; it need not be among theirs.
      step: that of the newest by default; not above it.
      template: a tree of the parameters' shapes and dtypes.

    Raises:
      InputError: there are no snapshots, or none as late as `step`; one is damaged, or of another network;
        `sigma_rel` is out of range.
    """
    snapshots = list(snapshots)
    if not snapshots:
        raise InputError("there are no snapshots of averages; train with --config.train.ema_profiles=0.05,0.1")
    newest = max(snapshots, key=lambda snapshot: snapshot.step)
    step = newest.step if step is None else step
    if not 1 <= step <= newest.step:
        raise InputError(f"there is no average of step {step}; the newest snapshot is of step {newest.step}")
    mixed = averages.mixture([s.step for s in snapshots], [s.sigma_rel for s in snapshots], step, sigma_rel)
    files = [_checked(snapshot, template) for snapshot in snapshots]

    def leaf(name: str, like) -> np.ndarray:
        # As moves away from one of them: what is the same in all of them comes out as it is, exactly.
        total = base = files[0](name).astype(np.float64)
        for file, weight in zip(files[1:], mixed.weights[1:], strict=True):
            total = total + weight * (file(name) - base)
        return total.astype(like.dtype)

    leaves = [leaf(name, like) for name, like in _named(template)]
    return Reconstruction(jax.tree.unflatten(jax.tree.structure(template), leaves), step, mixed)


def _named(tree) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _checked(snapshot: Snapshot, template):
    """`name -> array` of a snapshot that fits the template; what is read is compared with its checksum."""
    arrays = snapshot.arrays()
    sums, digest = arrays.pop(CRC, None), arrays.pop(DIGEST, None)
    if _shapes(arrays.items()) != _shapes(_named(template)):
        raise InputError(f"{snapshot.path} is not of this network; move it elsewhere")
    known = {} if sums is None else dict(zip(arrays, np.asarray(sums).tolist(), strict=False))
    if digest is not None and not np.array_equal(digest, _digest(snapshot.sigma_rel, snapshot.step, arrays, sums)):
        raise InputError(f"{snapshot.path} is damaged, or of another step or profile; move it elsewhere")

    def read(name: str) -> np.ndarray:
        array = np.asarray(arrays[name])
        if known.get(name) != _crc(array):
            raise InputError(f"{snapshot.path} is damaged ({name} differs from its checksum); move it elsewhere")
        return array

    return read


def _same(path: Path, sigma_rel: float, step: int, arrays: Mapping[str, np.ndarray], sums: np.ndarray) -> bool:
    """Whether the file holds these arrays, of that step and profile; a damaged one does not."""
    try:
        there = safetensors_file.load(path)
        digest = np.asarray(there.pop(DIGEST, _digest(sigma_rel, step, arrays, sums)))
        return (
            [*there] == [*arrays, CRC]
            and np.array_equal(digest, _digest(sigma_rel, step, arrays, sums))
            and all(_crc(there[name]) == expected for name, expected in zip(arrays, sums.tolist(), strict=True))
        )
    except InputError:
        return False


def _name(sigma_rel: float, step: int) -> str:
    return f"sigma_rel_{sigma_rel}_{step:08d}.safetensors"


def _digest(sigma_rel: float, step: int, arrays: Iterable[str], sums) -> np.ndarray:
    """uint8 [32]: SHA-256 of the file's metadata."""
    identity = [sigma_rel, step, [*arrays], None if sums is None else np.asarray(sums).tolist()]
    return np.frombuffer(hashlib.sha256(json.dumps(identity).encode()).digest(), np.uint8)


def _shapes(arrays: Iterable[tuple[str, Any]]) -> dict[str, tuple]:
    return {name: (array.shape, array.dtype) for name, array in arrays}


def _crc(array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return aside
