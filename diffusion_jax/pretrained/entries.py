"""Parameters from published weights and back, by a table of entries: which of theirs is which of ours, and how."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.formats import safetensors_file
from diffusion_jax.pretrained.formats.files import DIFFUSERS
from diffusion_jax.pretrained.layouts import Layout, same

OTHERS = "these are not the weights of this network"


class Entry(NamedTuple):
    """One array of published weights.

    Attributes:
      theirs: its name.
      ours: paths of the parameters that are made of it, "down_0_block_0/conv_0/kernel"; in the layout's order.
      layout: how.
      copies: further names under which the file holds the same values: checked when read, repeated when written.
    """

    theirs: str
    ours: tuple[str, ...]
    layout: Layout = same
    copies: tuple[str, ...] = ()


def read(template: Mapping[str, Any], entries: Sequence[Entry], weights: Mapping[str, Any]) -> dict:
    """Parameters of a network from published weights, array by array: no second copy of all is in memory.

    The largest array is read first: then what is copied to rearrange it lies where the others will.

    Args:
      template: the network's parameters as shapes and dtypes, `jax.eval_shape(model.init, ...)["params"]`.
      entries: the table, for every array of `weights` and every parameter.
      weights: name -> array, or what `np.asarray` makes one of (`stored.Stored`); of any float type.

    Returns:
      Nested dictionaries like `template`, of JAX arrays of its dtypes.

    Raises:
      InputError: arrays are missing, unknown, of another shape, no floats or not finite, or copies differ; numbers
        overflow a dtype of `template`; or the table is not that of this network.
    """
    leaves = traverse_util.flatten_dict(template, sep="/")
    _check_table(leaves, entries)
    _check_total(leaves, weights)
    _check_weights({name: shape for name, (_, shape) in kinds(template, entries).items()}, weights)
    params: dict[str, Any] = {}
    broken: dict[str, list[str]] = {}

    def add(entry: Entry):  # a function, so that nothing of an array is left when the next is read
        array = np.array(weights[entry.theirs])  # its own: on a CPU the parameter may be this very memory
        for copy in entry.copies:
            if not np.array_equal(array, np.asarray(weights[copy])):
                raise InputError(f"{copy} differs from {entry.theirs}; in this network they must be the same")
        for name, part in zip(entry.ours, entry.layout.read(array), strict=True):
            with np.errstate(over="ignore"):
                part = part.astype(leaves[name].dtype, copy=False)
            if not np.isfinite(part).all():
                fault = f"overflow {part.dtype}" if np.isfinite(array).all() else "are not finite"
                broken.setdefault(fault, []).append(entry.theirs)
            # Wait: what is on its way to a device keeps the array that it was made of.
            params[name] = jax.block_until_ready(jax.device_put(part))

    for entry in sorted(entries, key=lambda entry: -math.prod(weights[entry.theirs].shape)):
        add(entry)
    for fault, names in broken.items():
        remedy = "take bfloat16 or float32" if fault == "overflow float16" else "get the file again"
        raise InputError(f"weights that {fault}: {_listed(sorted(names))}; {remedy}")
    return traverse_util.unflatten_dict(params, sep="/")


def as_stored(template: Mapping[str, Any], entries: Sequence[Entry], weights: Mapping[str, Any]) -> dict:
    """`template` with the dtypes of the file, as far as JAX has them; arguments as of `read`.

    What the file does not have stays as it is; `read` refuses it.
    """
    dtypes = {
        name: weights[entry.theirs].dtype for entry in entries if entry.theirs in weights for name in entry.ours
    }
    leaves = traverse_util.flatten_dict(template, sep="/")
    stored = {
        name: jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(dtypes.get(name, leaf.dtype)))
        for name, leaf in leaves.items()
    }
    return traverse_util.unflatten_dict(stored, sep="/")


def write(
    params: Mapping[str, Any],
    entries: Sequence[Entry],
    path: str | Path,
    config: Mapping[str, Any],
    stem: str = DIFFUSERS,
) -> None:
    """The inverse of `read`: a folder with weights and config.json as diffusers keeps them; bit for bit.

    Args:
      params: nested dictionaries of arrays.
      entries: the table.
      path: of the folder, made if there is none. Each of the two files appears whole or not at all, the config last.
      config: what config.json shall hold.
      stem: of the name of the weights (`files.DIFFUSERS`, `files.TRANSFORMERS`).

    Raises:
      InputError: files cannot be written there, or the table is not that of these parameters.
    """
    path, leaves = Path(path), traverse_util.flatten_dict(params, sep="/")

    def arrays() -> Iterable[np.ndarray]:
        for entry in entries:
            array = entry.layout.write(*(np.asarray(leaves[name]) for name in entry.ours))
            yield from [array] * (1 + len(entry.copies))

    safetensors_file.write(path / f"{stem}.safetensors", kinds(params, entries), arrays())
    files.write_json(path / "config.json", config)


def kinds(template: Mapping[str, Any], entries: Sequence[Entry]) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Name -> dtype and shape of every array that a file must have, in the table's order.

    Arguments as of `read`.

    Raises:
      InputError: the table is not that of this network.
    """
    leaves = traverse_util.flatten_dict(template, sep="/")
    _check_table(leaves, entries)
    # One zero, repeated by strides of 0: rearranging it says the shape, and takes next to no memory.
    zeros = {name: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape) for name, leaf in leaves.items()}
    found: dict = {}
    for entry in entries:
        array = entry.layout.write(*(zeros[name] for name in entry.ours))
        found |= dict.fromkeys((entry.theirs, *entry.copies), (array.dtype, array.shape))
    return found


def check_names(entries: Sequence[Entry], weights: Iterable[str]) -> None:
    """Raise `InputError` unless `weights` are the names of the table; each other is named."""
    _refuse(OTHERS, _other_names([name for entry in entries for name in (entry.theirs, *entry.copies)], weights))


def _other_names(wanted: Iterable[str], given: Iterable[str]) -> dict[str, list[str]]:
    wanted, given = dict.fromkeys(wanted), dict.fromkeys(given)
    return {
        "missing": [name for name in wanted if name not in given],
        "unknown": [name for name in given if name not in wanted],
    }


def _check_table(leaves: Mapping[str, Any], entries: Sequence[Entry]) -> None:
    ours = Counter(name for entry in entries for name in entry.ours)
    _refuse(
        "the table of names is not that of this network",
        {
            "not in the network": [name for name in ours if name not in leaves],
            "not in the table": [name for name in leaves if name not in ours],
            "twice in the table": [name for name, count in ours.items() if count > 1],
        },
    )


def _check_total(leaves: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Raise `InputError` where parameters outnumber the file's numbers by far: to rearrange them takes memory."""
    wanted = sum(math.prod(leaf.shape) for leaf in leaves.values())
    given = sum(math.prod(array.shape) for array in weights.values())
    if wanted > 2 * given + 2**20:
        raise InputError(f"{OTHERS}, which has {wanted} parameters; the file has {given}")


def _check_weights(shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Any]) -> None:
    both = [name for name in shapes if name in weights]
    _refuse(
        OTHERS,
        _other_names(shapes, weights)
        | {
            "of another shape": [
                f"{name} {tuple(weights[name].shape)} instead of {shapes[name]}"
                for name in both
                if tuple(weights[name].shape) != shapes[name]
            ],
            "no floats": [
                f"{name} {weights[name].dtype}"
                for name in both
                if not jnp.issubdtype(weights[name].dtype, jnp.floating)
            ],
        },
    )


def _refuse(what: str, faults: Mapping[str, Iterable[str]]) -> None:
    found = [f"{fault}: {_listed(names)}" for fault, names in faults.items() if names]
    if found:
        raise InputError(f"{what}; {'; '.join(found)}")


def _listed(names: Iterable[str]) -> str:
    """The first ten, and how many more."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
