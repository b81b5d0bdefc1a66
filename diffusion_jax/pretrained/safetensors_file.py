"""Files of safetensors: a header of JSON, then the arrays, one after the other.

Eight bytes, little-endian, say how long the header is; it maps names to dtype, shape and place. The library of that
name is not used: its NumPy side does not know bfloat16, maps the file into memory, and writes from memory only.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from diffusion_jax import files
from diffusion_jax.errors import InputError
from diffusion_jax.pretrained.stored import Stored, check_shape

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
LONGEST = 100_000_000  # bytes of a header, the limit of the library
METADATA = "__metadata__"


def load(path) -> dict[str, Stored]:
    """The arrays of a file of safetensors, still in the file: name -> `Stored`, in the header's order.

    Raises:
      InputError: the file cannot be read, is damaged or cut off, or has an array of a type that is not in `DTYPES`.
    """
    path = Path(path)
    damaged = InputError(f"{path} is not a file of safetensors, or it is damaged; get it again")
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            total = path.stat().st_size
            if length > min(LONGEST, total - 8):
                raise damaged
            header = json.loads(file.read(length))
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error})") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if type(header) is not dict:
        raise damaged
    header.pop(METADATA, None)
    return {name: _stored(path, name, entry, 8 + length, total) for name, entry in header.items()}


def _stored(path, name: str, entry, start: int, total: int) -> Stored:
    what = f"{path}: tensor {name[:100]!r}"
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise InputError(f"{what} is damaged: its entry in the header is not that of an array")
    if dtype not in DTYPES:
        raise InputError(f"{what} is of type {dtype[:20]!r}; only {', '.join(DTYPES)} are read")
    shape = check_shape(shape, what)
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise InputError(f"{what} is damaged: {end - begin} bytes for shape {shape} of {dtype}")
    if not 0 <= begin <= end <= total - start:
        raise InputError(f"{what} is cut off: the file has {total} bytes; get it again")
    return Stored(path, DTYPES[dtype], shape, start + begin)


def write(path, shapes: Mapping[str, tuple[np.dtype, tuple[int, ...]]], arrays: Iterator[np.ndarray]) -> None:
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
    header, end = {METADATA: {"format": "pt"}}, 0
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
