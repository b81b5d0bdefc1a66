"""Files of safetensors: a header of JSON, then the arrays, one after the other.

Eight bytes, little-endian, say how long the header is; it maps names to dtype, shape and place. The library of that
name is not used: its NumPy side does not know bfloat16, maps the file into memory, and writes from memory only.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.formats.stored import Stored, check_shape, show

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
LONGEST = 16 * files.MEBIBYTE  # bytes of a header: of some 100,000 arrays
METADATA = "__metadata__"
FIELDS = {"dtype", "shape", "data_offsets"}


def load(path: str | Path) -> dict[str, Stored]:
    """The arrays of a file of safetensors, still in the file: name -> `Stored`, in the header's order.

    What the format's own reader refuses is refused: arrays that overlap, leave gaps or do not reach the file's end, a
    header that is not exactly an object. So are names that come twice, of which that reader takes the last.

    Raises:
      InputError: the file cannot be read, is damaged or cut off, has a header of more than `LONGEST` bytes, or an
        array of a type that is not in `DTYPES`.
    """
    path = Path(path)
    header, _, start, total = _read(path)
    places = {name: _place(path, name, entry, total - start) for name, entry in header.items()}
    _check_cover(path, places, total - start)
    return {name: Stored(path, p.dtype, p.shape, start + p.begin) for name, p in places.items()}


def metadata(path: str | Path) -> dict[str, str]:
    """What a file says beside its arrays, name -> text.

    Raises:
      InputError: as of `load`, but for the arrays, which are not looked at.
    """
    return _read(Path(path)).metadata


class _Header(NamedTuple):
    entries: dict[str, Any]
    metadata: dict[str, str]
    start: int  # of the arrays, in bytes
    total: int  # bytes of the file


def _read(path: Path) -> _Header:
    damaged = InputError(f"{path} is not a file of safetensors, or it is damaged; get it again")
    with files.reading(path) as file:
        length = int.from_bytes(file.read(8), "little")
        total = os.fstat(file.fileno()).st_size
        if length > total - 8:
            raise damaged
        if length > LONGEST:
            raise InputError(f"{path} has a header of {length} bytes; at most {LONGEST} are read: split the file")
        content = file.read(length)
    try:
        header = json.loads(content.decode(), object_pairs_hook=files.once, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise damaged from error
    notes = header.pop(METADATA, None) if type(header) is dict else None
    if type(header) is not dict or not _is_metadata(notes) or not _is_text(header):
        raise damaged
    return _Header(header, notes or {}, 8 + length, total)


class _Place(NamedTuple):
    begin: int  # bytes after the header
    end: int
    dtype: np.dtype
    shape: tuple[int, ...]


def _place(path, name: str, entry, size: int) -> _Place:
    what = f"{path}: tensor {name[:100]!r}"
    if type(entry) is not dict or entry.keys() != FIELDS:
        raise InputError(f"{what} is damaged: its entry in the header is not that of an array")
    kind, offsets = entry["dtype"], entry["data_offsets"]
    if type(kind) is not str or type(entry["shape"]) is not list or not _is_pair(offsets):
        raise InputError(f"{what} is damaged: its entry in the header is not that of an array")
    if kind not in DTYPES:
        raise InputError(f"{what} is of type {kind[:20]!r}; only {', '.join(DTYPES)} are read")
    (begin, end), dtype = offsets, DTYPES[kind]
    shape = check_shape(entry["shape"], what)
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise InputError(f"{what} is damaged: {show(end - begin)} bytes for shape {shape} of {kind}")
    if not 0 <= begin <= end <= size:
        raise InputError(f"{what} is cut off: the file has {size} bytes of arrays; get it again")
    return _Place(begin, end, dtype, shape)


def _check_cover(path, places: Mapping[str, _Place], size: int) -> None:
    """Raise `InputError` unless the arrays fill what follows the header, one after the other."""
    at = 0
    for name, place in sorted(places.items(), key=lambda item: item[1][:2]):
        if place.begin != at:
            what = f"{path}: tensor {name[:100]!r} is damaged"
            raise InputError(f"{what}: it begins at byte {place.begin}, and the one before it ends at {at}")
        at = place.end
    if at != size:
        raise InputError(f"{path} is damaged: {size - at} bytes follow its last array; get it again")


def _is_pair(found) -> bool:
    return type(found) is list and [type(number) for number in found] == [int, int]


def _integer(text: str) -> int | float:
    """As the format's reader takes it: -0 is none."""
    return -0.0 if text == "-0" else int(text)


def _is_text(names) -> bool:
    """Whether they can be printed: half of a surrogate pair cannot."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_metadata(found) -> bool:
    return found is None or (type(found) is dict and all(type(value) is str for value in found.values()))


def write(
    path: str | Path, shapes: Mapping[str, tuple[np.dtype, tuple[int, ...]]], arrays: Iterable[np.ndarray]
) -> None:
    """Write arrays one after the other, of which only one need be in memory; the file appears whole or not at all.

    Args:
      path: of the file.
      shapes: name -> dtype and shape of every array.
      arrays: the arrays, in the order of `shapes`.

    Raises:
      InputError: the file cannot be written there, or a dtype is not in `DTYPES`.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    # What reads such files for PyTorch wants to be told.
    header: dict[str, dict] = {METADATA: {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        if dtype not in names:
            raise InputError(f"{name} is of type {dtype}; only {', '.join(DTYPES)} are written")
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of 8 bytes

    def save(file):
        file.write(len(text).to_bytes(8, "little") + text)
        for array, (dtype, shape) in zip(arrays, shapes.values(), strict=True):
            assert array.dtype == dtype, array.dtype
            assert array.shape == tuple(shape), array.shape
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    files.write(path, save)
