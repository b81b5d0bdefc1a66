"""Arrays in files of NumPy (.npy, .npz), whatever the files claim: nothing is executed, and memory is bounded.

An .npz file is a zip archive of .npy files, each with a CRC-32, which is checked. A few bytes of it can unpack to
gigabytes: a whole file is read only where that is not so, and long arrays are read row by row.
"""

import io
import math
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import MEBIBYTE, Bounded

SMALL = 256 * MEBIBYTE  # bytes of arrays that are read whole, however well they were packed
RATIO = 4  # beyond that: times the file's bytes
HEADER, DIRECTORY = MEBIBYTE // 16, 4 * MEBIBYTE  # bytes of an array's header, and of an archive's directory
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of NumPy
MAGIC = b"\x93NUMPY"


class Rows(NamedTuple):
    """An array that is read part by part, along its first axis.

    Attributes:
      dtype: of it.
      shape: of it, [N, ...].
      parts: `size -> iterator` of arrays [size, ...]; the last may be shorter. Raises `InputError` where the file is
        damaged or shorter than it was.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    parts: Callable[[int], Iterator[np.ndarray]]


class _Header(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    length: int  # bytes

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def arrays(path: str | Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name: all, or those of `names` that are there.

    Raises:
      InputError: the file cannot be read, is damaged or another, holds something else than arrays of numbers, or is
        so well packed that it may be a trap.
    """
    with _archive(path) as found:
        members = {name: member for name, member in found.items() if not names or name in names}
        unpacked, size = sum(info.file_size for _, info in members.values()), os.path.getsize(path)
        if unpacked > max(SMALL, RATIO * size):
            remedy = "save it with numpy.savez, which does not pack"
            raise InputError(f"{path} would be {unpacked} bytes of arrays, unpacked from {size}; {remedy}")
        return {name: _whole(archive, info) for name, (archive, info) in members.items()}


def is_archive(path: str | Path) -> bool:
    """Whether a file is an .npz file rather than one array, or something else."""
    return _starts(path, b"PK")


def names(path: str | Path) -> set[str]:
    """Of the arrays of an .npz file; errors as of `arrays`."""
    with _archive(path) as members:
        return set(members)


def rows(path: str | Path, *names: str) -> Rows:
    """The array of an .npy file, or the first of `names` that an .npz file has, still in the file.

    Raises:
      InputError: as of `arrays`; or there is none of these names, it has no rows, or not row after row in the file.
    """

    @contextmanager
    def opened():
        if _starts(path, MAGIC):
            with _said(path), files.reading(path) as file:
                yield file, os.fstat(file.fileno()).st_size
            return
        with _archive(path) as members:
            name = next((name for name in names if name in members), None)
            if name is None:
                found = ", ".join(sorted(members)[:10]) or "nothing"
                raise InputError(f"{path} has no array {' or '.join(names)}; it has {found}")
            archive, info = members[name]
            with archive.open(info) as file:
                yield file, info.file_size

    with opened() as (file, size):
        header = _header(file, size)
    if not header.shape or (header.order == "F" and len(header.shape) > 1):
        raise InputError(f"{path} has no rows one after the other; save it as numpy.ascontiguousarray(array)")

    def parts(size: int) -> Iterator[np.ndarray]:
        with opened() as (file, total):
            if _header(file, total) != header:
                raise ValueError("it changed while it was read")
            for start in range(0, header.shape[0], size):
                yield _taken(file, header._replace(shape=(min(size, header.shape[0] - start), *header.shape[1:])))
            file.read(1)  # at the end of a packed file its checksum is met

    return Rows(header.dtype, header.shape, parts)


class Indexed:
    """The array of an .npy file, or of an .npz file that is not packed, on disk: only rows asked for are read.

    A memory map would end the process where another cuts the file off meanwhile; here that is an `InputError`, and a
    file that is replaced is read on as it was. The checksum of an .npz file is not met; what writes it can keep one
    of each row.

    Args:
      path: the file.
      name: of the array in an .npz file; none for an .npy file.

    Attributes:
      dtype, shape: of the array.

    Raises:
      InputError: as of `rows`; or the array is not there, or packed.
    """

    def __init__(self, path: str | Path, name: str = ""):
        with _member(path, name) if name else _alone(path) as (file, start, size):
            file.seek(start)
            header = _header(file, size)
        if not header.shape or (header.order == "F" and len(header.shape) > 1):
            raise InputError(f"{path} has no rows one after the other; save it as numpy.ascontiguousarray(array)")
        self.dtype, self.shape = header.dtype, header.shape
        self._path, self._start, self._row = path, start + header.length, header._replace(shape=header.shape[1:])
        self._file = open(path, "rb")  # noqa: SIM115 (as long as the array lives)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(self.shape[0])[index]
        content = os.pread(self._file.fileno(), self._row.size, self._start + index * self._row.size)
        with _said(self._path):
            return _taken(io.BytesIO(content), self._row)


@contextmanager
def _alone(path) -> Iterator[tuple[IO[bytes], int, int]]:
    """(file, where its array begins, bytes from there on) of an .npy file."""
    with _said(path), files.reading(path) as file:
        yield file, 0, os.fstat(file.fileno()).st_size


@contextmanager
def _member(path, name: str) -> Iterator[tuple[IO[bytes], int, int]]:
    """The same of an array in an .npz file, where it lies as it is."""
    with _archive(path) as found:
        if name not in found:
            raise InputError(f"{path} has no array {name}; it has {', '.join(sorted(found)[:10]) or 'nothing'}")
        info = found[name][1]
    if info.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{path} is packed; save it with numpy.savez, which does not pack")
    with _said(path), files.reading(path) as file:
        file.seek(info.header_offset)
        head = file.read(30)  # which ends with the lengths of two texts that follow it
        if len(head) < 30 or head[:4] != b"PK\3\4":
            raise ValueError("an array does not begin where it should")
        yield file, info.header_offset + 30 + sum(struct.unpack("<HH", head[26:])), info.file_size


def _whole(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        header = _header(file, info.file_size)
        found = _taken(file, header)
        if file.read(1):  # at the end its checksum is met
            raise ValueError(f"{info.filename[:100]!r} is longer than its array")
        return found


def _header(file: IO[bytes], size: int) -> _Header:
    """What the first bytes of an .npy file say; `size` is that of the file."""
    bounded = Bounded(file, HEADER)
    version = np.lib.format.read_magic(bounded)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError("it holds no plain numbers")
    shape, fortran, dtype = read(bounded)
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {str(dtype)[:40]}, not plain numbers")
    if len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("its shape is none")
    if math.prod(n or 1 for n in shape) >= 2**60:
        raise ValueError("no array can have its shape")
    header = _Header(dtype, tuple(shape), "F" if fortran else "C", HEADER - bounded.left)
    if header.size > size - header.length:
        raise ValueError(f"it is cut off: {size} bytes for {dtype} {list(shape)}")
    return header


def _taken(file: IO[bytes], header: _Header) -> np.ndarray:
    """The next entries of a file."""
    content, done = np.empty(header.size, np.uint8), 0
    while done < header.size:
        part = file.read(min(MEBIBYTE, header.size - done))
        if not part:
            raise ValueError("it is cut off")
        content[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    array = content.view(header.dtype).reshape(header.shape, order=header.order)
    return array.astype(header.dtype.newbyteorder("="), copy=False)


def _starts(path, magic: bytes) -> bool:
    with files.reading(path) as file:
        return file.read(len(magic)) == magic


@contextmanager
def _archive(path) -> Iterator[dict[str, tuple[Any, zipfile.ZipInfo]]]:
    """Name -> (archive, member) of an .npz file."""
    if _starts(path, MAGIC):
        raise InputError(f"{path} holds an array without a name; give an .npz: numpy.savez(FILE, NAME=array)")
    with _said(path), files.reading(path) as file:
        bounded = Bounded(file, DIRECTORY)
        with zipfile.ZipFile(bounded) as archive:
            bounded.left = sys.maxsize  # the directory is read; members are bounded by what they claim
            listed = archive.infolist()
            members = {info.filename.removesuffix(".npy"): (archive, info) for info in listed}
            if len(members) < len(listed) or not all(info.filename.endswith(".npy") for info in listed):
                raise ValueError("a name comes twice, or is that of no array")
            if not all(info.compress_type in PACKINGS for info in listed):
                raise ValueError("it is packed otherwise than NumPy does")
            yield members


@contextmanager
def _said(path) -> Iterator[None]:
    """Whatever damaged bytes lead to, in one line."""
    try:
        yield
    except (InputError, GeneratorExit):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"cannot read {path} ({reason}); give a whole file of arrays, .npz or .npy") from error
