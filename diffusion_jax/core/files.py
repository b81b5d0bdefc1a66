"""Files that are read within bounds, and written whole or not at all."""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from diffusion_jax.core.errors import InputError

MEBIBYTE = 2**20
OBJECT = MEBIBYTE  # bytes of a JSON file that is read whole; as Python objects they can take 30 times as much


@contextmanager
def reading(path: str | Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading: pipes and devices, which may have no end, are refused and never waited for.

    Raises:
      InputError: it is none, or cannot be read, now or in the body.
    """
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"cannot read {path} (it is a pipe or a device); give a regular file")
            yield file
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error})") from error


def read(path: str | Path, most: int) -> bytes:
    """The whole of a regular file.

    Raises:
      InputError: as of `reading`, or it has more than `most` bytes.
    """
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if max(size, len(content)) > most:
        raise InputError(f"{path} has {size} bytes; such a file has at most {most}, so it is another, or damaged")
    return content


def json_object(path: str | Path, most: int = OBJECT) -> dict[str, Any]:
    """The object in a JSON file of at most `most` bytes.

    Raises:
      InputError: as of `read`, or it holds something else, or a name twice in one object.
    """
    content = read(path, most)
    try:
        found = json.loads(content, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({str(error)[:80]})") from error
    if type(found) is not dict:
        raise InputError(f"{path} holds a {type(found).__name__}, not an object with names")
    return found


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dictionary of (name, value), or `ValueError` where a name comes twice: readers would differ on it."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


class Bounded:
    """A binary file of which no more than `left` bytes are read, whatever lengths it claims.

    Reads beyond that raise `ValueError`. Of the methods of files it has those that readers of formats call.
    """

    def __init__(self, file: IO[bytes], left: int):
        self.file, self.left = file, left
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """As of a file; without a size all that is left of the bound."""
        most = self.left + 1  # what is claimed beyond it takes no memory
        return self._counted(self.file.read(most if size is None or size < 0 else min(size, most)))

    def readline(self) -> bytes:
        """As of a file."""
        return self._counted(self.file.readline(self.left + 1))

    def _counted(self, content: bytes) -> bytes:
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("it is longer than such a file is")
        return content


unfinished: set[Path] = set()  # temporary files of this process, which one that ends at once removes


def remove_unfinished(folder: Path, pattern: str):
    """Remove what killed processes left of files in `folder` that match `pattern`, where no one else writes such."""
    for path in folder.glob(f".{pattern}.*"):
        if re.fullmatch(r"\d+", path.suffix[1:]):
            path.unlink(missing_ok=True)


def check_folder(path: str | Path) -> None:
    """Raise `InputError` unless a folder, which need not be there yet, can be written to; nothing is written."""
    path = Path(path)
    try:
        found = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a path you may write to") from error
    reason = "no folder" if not found.is_dir() else "" if os.access(found, os.W_OK | os.X_OK) else "not writable"
    if reason:
        raise InputError(f"cannot write {path} ({found} is {reason}); choose a path you may write to")


def write(path: str | Path, save: Callable[[BinaryIO], Any]) -> None:
    """Call `save(file)` on a temporary binary file beside `path`, and rename it: no one ever sees half a file.

    Raises:
      InputError: the file cannot be written there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                save(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            unfinished.discard(temporary)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a path you may write to") from error


def _at_once(path, flags: int) -> int:
    """Open without waiting for the other end of a pipe; of regular files the flag says nothing."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def write_json(path: str | Path, content: Any) -> None:
    """`write` of what JSON can say, with two spaces a level."""
    write(Path(path), lambda file: file.write(json.dumps(content, indent=2).encode() + b"\n"))
