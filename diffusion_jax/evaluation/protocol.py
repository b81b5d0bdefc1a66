"""What was measured, and how: everything that is needed to repeat a number, or to know that two do not compare."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.config import flatten
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.core.protocols import Tree

LONGEST = 16 * files.MEBIBYTE  # bytes of a report
PACKAGES = ("diffusion_jax", "jax", "jaxlib", "flax", "numpy")


def digest(tree: Tree) -> str:
    """SHA-256 of the arrays of a pytree: their places, types, shapes and bytes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree.flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.data if array.size else b"")
    return found.hexdigest()


def environment() -> dict[str, str]:
    """Versions and device."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return versions | {"python": platform.python_version(), "device": device}


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report as JSON, whole or not at all.

    Raises:
      NotFiniteError: a metric is not finite.
    """
    broken = [name for name, value in report["metrics"].items() if not math.isfinite(value)]
    if broken:
        raise NotFiniteError(f"not finite: {', '.join(broken)}; no report is written")
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    files.write(path, lambda file: file.write(text.encode()))


def read(path: str | Path) -> dict[str, Any]:
    """A report that `write` wrote.

    Raises:
      InputError: it is none.
    """
    try:
        report = files.json_object(path, LONGEST)
        sections = [report.get(name) for name in ("protocol", "subject", "metrics")]
        known = all(map(_is_flat, sections)) and all(type(n) in (int, float) for n in (sections[2] or {}).values())
    except InputError as error:
        raise InputError(f"{error}; give an evaluation.json") from error
    if not known:
        raise InputError(f"{path} is not a report of diffusion_jax.evaluate; give an evaluation.json")
    return report


def _is_flat(section) -> bool:
    """Whether it is of names and values, or of such sections, and not so deep that it has no end."""
    try:
        return type(section) is dict and flatten(section) is not None
    except RecursionError:
        return False


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(metric, of a, of b) of two reports with one protocol; metrics that only one of them has are left out.

    What has a SHA-256 in both is the same where that is, whatever it is called.

    Raises:
      InputError: their protocols differ: each difference is named. Such numbers say nothing beside each other.
    """
    notes = _notes(a, b)
    rows = [row for row in _differing(a, b, "protocol") if row[0] not in notes]
    if rows:
        different = [f"{key}: {one!r} and {other!r}" for key, one, other in rows]
        raise InputError(f"these were not measured alike, {'; '.join(different)}; measure one of them again")
    return [(name, a["metrics"][name], b["metrics"][name]) for name in a["metrics"] if name in b["metrics"]]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, of a, of b) of what differs in what was measured, models, samplers, steps, and of other names."""
    notes = _notes(a, b)
    return _differing(a, b, "subject") + [row for row in _differing(a, b, "protocol") if row[0] in notes]


def _differing(a, b, section: str) -> list[tuple[str, Any, Any]]:
    ours, theirs = flatten(a[section]), flatten(b[section])
    keys = sorted(ours.keys() | theirs.keys())
    return [(key, ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)]


def _notes(a, b) -> set[str]:
    """Keys of names of what both reports know by its hash."""
    ours, theirs = flatten(a["protocol"]), flatten(b["protocol"])
    hashed = {key.removesuffix("sha256") for key in ours if key.endswith(".sha256") and ours[key] and theirs.get(key)}
    return {f"{prefix}name" for prefix in hashed}
