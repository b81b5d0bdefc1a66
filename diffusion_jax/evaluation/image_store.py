"""Sets of images: in a folder of parts that a killed run goes on from, in a file, or in a folder of pictures."""

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import Examples
from diffusion_jax.data import numpy_files, pictures, sources

PART, BYTES = 500, 2**26  # images read at a time, and their bytes, so that memory does not grow with their number
NAMES = ("images", "arr_0")  # of arrays of images in .npz files: ours, and everyone's


class Images(NamedTuple):
    """A set of images that is read part by part.

    Attributes:
      count: how many.
      parts: `() -> uint8 [b, H, W, C]`, one after another.
      name: for a person.
    """

    count: int  # type: ignore[assignment]  # tuples have a method of the name
    parts: Callable[[], Iterator[np.ndarray]]
    name: str

    def some(self, num: int) -> np.ndarray:
        """The first `num` of them."""
        found, left = [], min(num, self.count)
        for part in self.parts():
            found.append(part[:left])
            left -= len(found[-1])
            if not left:
                break
        return np.concatenate(found)

    def sha256(self) -> str:
        """Of their pixels, in order, however they are divided into parts."""
        found, done = hashlib.sha256(), 0
        for part in self.parts():
            while len(part):
                if not done % PART:
                    found.update(f"{part.shape[1:]}".encode())
                some = part[: PART - done % PART]
                found.update(np.ascontiguousarray(some).data)
                done, part = done + len(some), part[len(some) :]
        return found.hexdigest()


class Parts:
    """Samples in a folder, in parts of `batch`; each is written whole or not at all, and has a checksum."""

    def __init__(self, folder: Path, num: int, batch: int):
        self.folder, self.num, self.batch = folder, num, batch

    def missing(self) -> list[int]:
        """Where the parts begin that are not there; damaged ones, of which it is said, count as such.

        Each part is read. What another process adds meanwhile is whole, and the same where it draws the same.
        """
        missing = []
        for start in range(0, self.num, self.batch):
            try:
                if self._file(start).is_file():
                    self._read(start)
                    continue
            except InputError as error:
                line(f"{error}: it is made again")
            missing.append(start)
        return missing

    def add(self, start: int, part: np.ndarray) -> None:
        """Keep uint8 images [b, H, W, C]."""
        files.write(self._file(start), lambda file: np.savez(file, images=part))  # a CRC-32 is in it

    def images(self, name: str) -> Images:
        """All of them.

        Raises:
          InputError: a part cannot be read, when it is its turn; the same command makes it again.
        """

        def parts() -> Iterator[np.ndarray]:
            for start in range(0, self.num, self.batch):
                try:
                    yield self._read(start)
                except InputError as error:
                    raise InputError(f"{error}; delete it and give the same command again") from error

        return Images(self.num, parts, name)

    def _read(self, start: int) -> np.ndarray:
        file, count = self._file(start), min(self.batch, self.num - start)
        part = numpy_files.arrays(file).get("images", np.zeros(0))
        if part.dtype != np.uint8 or part.ndim != 4 or len(part) != count:
            raise InputError(f"{file} holds {part.dtype} {list(part.shape)} in place of {count} images")
        return part

    def _file(self, start: int) -> Path:
        return self.folder / f"images_{start:08d}.npz"


def of_source(source: Examples, name: str, num: int | None = None) -> Images:
    """The first `num` images (all) of a source of {"image": uint8 [H, W, C]}.

    Raises:
      InputError: it has other things than images.
    """
    first = np.asarray(source[0].get("image", ()))
    if first.ndim != 3 or first.dtype != np.uint8:
        raise InputError(f"{name} has no images, only {', '.join(source[0])}; sample quality is of images")
    count = len(source) if num is None else min(num, len(source))
    size = _part(first.nbytes)

    def parts() -> Iterator[np.ndarray]:
        for start in range(0, count, size):
            yield np.stack([source[i]["image"] for i in range(start, min(count, start + size))])

    return Images(count, parts, name)


def of_path(path: str | Path) -> Images:
    """Images that are there: a folder of pictures of one size, or an array uint8 [N, H, W, C], C = 1 or 3.

    Args:
      path: the folder; or an .npy file; or an .npz file with "images", as `diffusion_jax.sample` writes it, or
        "arr_0". Of pictures some of which are grey and some colour, all count as colour.

    Raises:
      InputError: there is neither, or it holds something else.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    found = numpy_files.rows(path, *NAMES)
    shape = found.shape
    if found.dtype != np.uint8 or len(shape) != 4 or not math.prod(shape) or shape[-1] not in pictures.MODES:
        remedy = "; images.transpose(0, 2, 3, 1) puts the channels last" if shape[1:2] in ((1,), (3,)) else ""
        raise InputError(f"{path} holds {found.dtype} {list(shape)}; images are uint8 [N, H, W, 1 or 3]{remedy}")
    if shape[1] * shape[2] > pictures.LARGEST:
        size = f"{shape[1]} x {shape[2]}"
        raise InputError(f"{path} holds images of {size}, over {pictures.LARGEST} pixels; shrink them")
    return Images(shape[0], partial(found.parts, _part(math.prod(shape[1:]))), str(path))


def _part(size: int) -> int:
    """How many images of so many bytes are read at a time."""
    return max(1, min(PART, BYTES // size))


def _of_folder(path: Path) -> Images:
    sizes: dict[tuple[int, int], Path] = {}
    grey = True
    for file in sources.image_files(path):
        with pictures.opened_file(file) as picture:
            # Sorted, for EXIF may yet turn it; one that then lies the other way is refused when it is read.
            sizes.setdefault(tuple(sorted(picture.size)), file)
            grey = grey and picture.mode in ("1", "L", "LA")
    if len(sizes) > 1:
        shown = ", ".join(f"{file} of {a} x {b}" for (a, b), file in list(sizes.items())[:3])
        raise InputError(f"images of {len(sizes)} sizes in {path}: {shown}; remove those that do not belong there")
    (first,) = sizes.values()
    channels = 1 if grey else 3
    upright = pictures.decode(pictures.opened_file(first), channels)
    return of_source(sources.folder(path, (upright.height, upright.width), channels), str(path))
