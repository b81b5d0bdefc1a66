"""Files that torch.save wrote (.pt, .pth, .bin, .ckpt), read without torch and without running what they hold.

Both formats: since torch 1.6 a zip archive with a pickle (data.pkl) and one uncompressed member a storage; before,
a sequence of pickles, then the storages. Only tensors and containers of them are read (`pickles`).
"""

import io
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import MEBIBYTE, Bounded
from diffusion_jax.pretrained.formats import pickles
from diffusion_jax.pretrained.formats.stored import Stored, check_shape, check_sizes, show

DIRECTORY = 16 * MEBIBYTE  # bytes of an archive's directory: of some 150,000 storages
SHARED = 4  # times the file's bytes: what its tensors may have in all, for some share a storage
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of the older format

STORAGES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int  # entries


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # entries
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Place(NamedTuple):
    offset: int
    size: int  # bytes


def load(path: str | Path, key: str | None = None) -> dict[str, Stored]:
    """The tensors of a file of torch.save, still in the file.

    Args:
      path: of the file.
      key: where the state dict is inside a larger dictionary, such as "state_dict"; None if it is all there is.

    Returns:
      Name -> `Stored`, in the file's order. Entries that are not tensors are left out.

    Raises:
      InputError: the file cannot be read, is damaged, holds code, was written on a big-endian machine, or has no
        tensors there; then the message names the keys that have.
    """
    path = Path(path)
    with files.reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise InputError(f"{path} is empty")
        read = _read_zip if file.read(4) == b"PK\3\4" else _read_legacy
        file.seek(0)
        content, places = read(file, size, path)
    found = {name: _stored(path, name, tensor, places) for name, tensor in _tensors(path, content, key).items()}
    # Tensors may share a storage; a file can say of few bytes that they are many tensors.
    claimed = sum(math.prod(stored.shape) * stored.dtype.itemsize for stored in found.values())
    if claimed > SHARED * size:
        raise InputError(f"{path} is damaged: its {size} bytes would be tensors of {claimed}; save a state dict")
    return found


def _tensors(path, content, key: str | None) -> dict[str, _Tensor]:
    found = _only_tensors(content if key is None else isinstance(content, dict) and content.get(key))
    if found:
        return found
    where = "at its top" if key is None else f"under {key!r}"
    keys = [k for k, v in content.items() if _only_tensors(v)] if isinstance(content, dict) else []
    remedy = f"give one of its keys: {', '.join(map(repr, keys[:10]))}" if keys else "save a state dict"
    raise InputError(f"{path} holds no tensors {where}; {remedy}")


def _only_tensors(content) -> dict[str, _Tensor]:
    if type(content) is not dict:
        return {}
    return {name: value for name, value in content.items() if type(value) is _Tensor and type(name) is str}


def _stored(path, name: str, tensor: _Tensor, places: Mapping[str, _Place]) -> Stored:
    """Where a tensor is; every size that the file claims is checked against what the file has."""
    storage, what = tensor.storage, f"{path}: tensor {name[:100]!r}"
    place = places.get(storage.key)
    if place is None:
        raise InputError(f"{what} is damaged: its storage {storage.key[:100]!r} is missing")
    if storage.size * storage.dtype.itemsize != place.size:
        raise InputError(f"{what} is damaged: its storage has {place.size} bytes, not {show(storage.size)} entries")
    offset = place.offset + tensor.offset * storage.dtype.itemsize
    stored = Stored(path, storage.dtype, tensor.shape, offset, tensor.strides)
    # The first would read beyond the storage; the second, repeating entries, would take memory without bound.
    if tensor.offset + stored.span > storage.size or math.prod(tensor.shape) > storage.size:
        raise InputError(f"{what} is damaged or expanded: shape {tensor.shape} in a storage of {show(storage.size)}")
    return stored


# ---- What a pickle of tensors may name.


def _storage(path):
    def persistent(reference) -> _Storage:
        match reference:
            case ("storage", pickles.Known(name, _), str(key), _, int(size)) if name in STORAGES and size >= 0:
                return _Storage(key, STORAGES[name], size)
            case ("storage", pickles.Known(name, _), str(key), _, int(size), None) if name in STORAGES and size >= 0:
                return _Storage(key, STORAGES[name], size)
        raise InputError(f"{path} holds something other than a tensor's storage; save a state dict alone")

    return persistent


def _rebuilt(storage, offset, size, stride, *_) -> _Tensor:
    shape, strides = check_shape(size, "a tensor"), check_sizes(stride, "a tensor")
    if type(storage) is not _Storage or type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise ValueError("a tensor without storage")
    return _Tensor(storage, offset, shape, strides)


def _untouched(data, *_) -> Any:
    return data


def _nothing(*_) -> None:
    return None


def _ordered(pairs=(), *_) -> dict:
    """An OrderedDict: empty and filled later, or, in the oldest files, of a list of pairs."""
    return {key: value for key, value in pairs if type(key) is str}


KNOWN = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _rebuilt,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_parameter": _untouched,
    "torch._utils._rebuild_parameter_with_state": _untouched,
    "torch.Size": _untouched,
    "torch.device": _nothing,
    "_codecs.encode": _nothing,  # bytes, in protocol 2
    **dict.fromkeys(STORAGES, _nothing),
    **dict.fromkeys((f"torch.{dtype.name}" for dtype in STORAGES.values()), _nothing),
}


# ---- The two formats: each gives the content, with `_Tensor` in the places of tensors, and where storages are.


def _read_zip(file: BinaryIO, size: int, path: Path) -> tuple[Any, dict[str, _Place]]:
    try:
        with zipfile.ZipFile(Bounded(file, DIRECTORY)) as archive:
            listed = archive.infolist()
    except OSError:
        raise
    except Exception as error:  # zipfile raises many kinds for damaged directories
        raise InputError(f"{path} is damaged (its directory cannot be read); get it again") from error
    members = {info.filename: info for info in listed}
    if len(members) < len(listed):
        raise InputError(f"{path} is damaged: its directory has a name twice; get it again")
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    if not roots:
        raise InputError(f"{path} is a zip archive, but not one of torch.save (it has no data.pkl)")
    root = min(roots, key=len)
    if root + "constants.pkl" in members:
        raise InputError(f"{path} is a TorchScript program; only weights are read: save its state dict")

    def place(name):
        return _member(file, size, path, members[name])

    def content(name):
        start, length = place(name)
        if length > pickles.LONGEST:
            raise InputError(f"{path} holds more than weights ({length} bytes beside them); save a state dict")
        file.seek(start)
        return file.read(length)

    if root + "byteorder" in members and content(root + "byteorder") != b"little":
        raise InputError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
    pickled = pickles.load(io.BytesIO(content(root + "data.pkl")), KNOWN, _storage(path), str(path))
    folder = root + "data/"
    return pickled, {name.removeprefix(folder): place(name) for name in members if name.startswith(folder)}


def _member(file: BinaryIO, size: int, path: Path, info: zipfile.ZipInfo) -> _Place:
    """Where a member's bytes are: its header in the file, which the directory points to, says how long it is."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        raise InputError(f"{path}: member {info.filename[:100]!r} is compressed, which torch.save does not do")
    file.seek(max(info.header_offset, 0))
    header = file.read(30)
    if info.header_offset < 0 or len(header) < 30 or header[:4] != b"PK\3\4":
        raise InputError(f"{path}: member {info.filename[:100]!r} is damaged; get the file again")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    if start + info.file_size > size:
        raise InputError(f"{path}: member {info.filename[:100]!r} is cut off; get the file again")
    return _Place(start, info.file_size)


def _read_legacy(file: BinaryIO, total: int, path: Path) -> tuple[Any, dict[str, _Place]]:
    try:
        begins = [pickles.load(file, {}, _nothing, str(path)) for _ in range(3)]
    except InputError:
        begins = [None] * 3
    magic, protocol, system = begins
    if magic != MAGIC or protocol != PROTOCOL or type(system) is not dict:
        raise InputError(f"{path} is not a file of torch.save")
    if system.get("little_endian") is not True:
        raise InputError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
    find = _storage(path)
    references: dict = {}

    def persistent(reference) -> _Storage:
        storage = find(reference)
        if references.setdefault(storage.key, storage) != storage:
            raise InputError(f"{path} is damaged: a storage is of two types or sizes; get it again")
        return storage

    content = pickles.load(file, KNOWN, persistent, str(path))
    keys = pickles.load(file, {}, _nothing, str(path))
    places = {}
    for key in keys if type(keys) is list else []:
        size = int.from_bytes(file.read(8), "little")
        if type(key) is not str or key not in references or size != references[key].size:
            raise InputError(f"{path} is damaged: a storage is not of the size that its tensors say; get it again")
        places[key] = _Place(file.tell(), size * references[key].dtype.itemsize)
        if sum(places[key]) > total:
            raise InputError(f"{path} is cut off; get it again")
        file.seek(sum(places[key]))
    return content, places
