"""Sets of images: in a folder of parts that a killed run goes on from, in a file, or in a folder of pictures."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax import files
from diffusion_jax.data import pictures, sources
from diffusion_jax.errors import InputError

PART = 500  # images read at a time, so that memory does not grow with their number


class Images(NamedTuple):
    """A set of images that is read part by part.

    Attributes:
      count: how many.
      parts: `() -> uint8 [b, H, W, C]`, one after another.
      name: for a person.
    """

    count: int
    parts: Callable
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
        """Of their pixels, in order."""
        found = hashlib.sha256()
        for part in self.parts():
            found.update(f"{part.shape[1:]}".encode())
            found.update(np.ascontiguousarray(part).data)
        return found.hexdigest()


class Parts:
    """Samples in a folder, in parts of `batch`; each is written whole or not at all."""

    def __init__(self, folder: Path, num: int, batch: int):
        self.folder, self.num, self.batch = folder, num, batch

    def missing(self) -> list[int]:
        """Where the parts begin that are not there."""
        return [start for start in range(0, self.num, self.batch) if not self._file(start).is_file()]

    def add(self, start: int, part: np.ndarray) -> None:
        """Keep uint8 images [b, H, W, C]."""
        files.write(self._file(start), lambda file: np.save(file, part, allow_pickle=False))

    def images(self, name: str) -> Images:
        """All of them.

        Raises:
          InputError: a part cannot be read, when it is its turn; delete it to have it drawn again.
        """

        def parts() -> Iterator[np.ndarray]:
            for start in range(0, self.num, self.batch):
                yield _loaded(self._file(start), min(self.batch, self.num - start))

        return Images(self.num, parts, name)

    def _file(self, start: int) -> Path:
        return self.folder / f"images_{start:08d}.npy"


def _loaded(file: Path, count: int) -> np.ndarray:
    try:
        part = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read {file} ({error}); delete it and give the same command again") from error
    if part.dtype != np.uint8 or part.ndim != 4 or len(part) != count:
        raise InputError(f"{file} holds {part.dtype} {list(part.shape)}; delete it and give the same command again")
    return part


def of_source(source, name: str, num: int | None = None) -> Images:
    """The first `num` images (all) of a source of {"image": uint8 [H, W, C]}.

    Raises:
      InputError: it has other things than images.
    """
    first = np.asarray(source[0].get("image", ()))
    if first.ndim != 3 or first.dtype != np.uint8:
        raise InputError(f"{name} has no images, only {', '.join(source[0])}; sample quality is of images")
    count = len(source) if num is None else min(num, len(source))

    def parts() -> Iterator[np.ndarray]:
        for start in range(0, count, PART):
            yield np.stack([source[i]["image"] for i in range(start, min(count, start + PART))])

    return Images(count, parts, name)


def of_path(path) -> Images:
    """A samples.npz ("images", uint8 [N, H, W, C]) or a folder of pictures of one size.

    Raises:
      InputError: there is neither, or it holds something else.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = file["images"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"cannot read images from {path} ({error}); give a folder or a samples.npz") from error
    if found.dtype != np.uint8 or found.ndim != 4 or not len(found):
        raise InputError(f"{path} holds {found.dtype} {list(found.shape)}; images are uint8 [N, H, W, C]")
    return Images(len(found), lambda: (found[i : i + PART] for i in range(0, len(found), PART)), str(path))


def _of_folder(path: Path) -> Images:
    sizes, grey = {}, True
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
