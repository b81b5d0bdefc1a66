"""What a first stage makes of images, kept in files: a diffusion model of latents trains without its encoder.

Kept are the moments of q(z | x), of each image and, where images are mirrored, of its mirror image: the mirrored
latent is another. So every epoch draws its latents anew, as it would encode anew.

DIR/latents.json             of what they are (`latent_record.Cache`); last of all their statistics are added
DIR/00000-of-00003.npz       the first `part` of them, and so on, each written whole or not at all:
    moments   float16 [n, 1 or 2, 2, h, w, c]: of the image (and its mirror), mean and std
    label     int64 [n], where the images have labels
    crc       uint32 [n], of the moments and the label of each
    sums      float64 [3, c], of mean, mean^2 and std^2
"""

import functools
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.autoencoding.latents import Statistics
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import Clean, Examples
from diffusion_jax.data import latent_record, numpy_files
from diffusion_jax.data.latent_record import Cache

PART = 512  # examples of a file: what a killed process loses, at most
KNOWN = 4096  # files whose labels and checksums are kept in memory
LOOKED = 32  # images by which others are known
AGAIN = "run prepare again, with the same values"
NUMBERED = 5  # digits of a part's number
HIGHEST = float(np.finfo(np.float16).max)


def record(path: str | Path) -> Cache:
    """What the folder `path` holds, where it is complete; no latents are read.

    Raises:
      InputError: there are no latents, not all yet, or the record is damaged.
    """
    path = Path(path).expanduser()
    found = latent_record.read(path)
    if found is None:
        raise InputError(f"there are no latents in {path}; make them with python -m diffusion_jax.prepare")
    _check_complete(path, found)
    if found.statistics is None:
        raise InputError(f"the statistics of the latents in {path} are missing; {AGAIN}")
    return found


# ---- Reading.


class Latents:
    """A source of latents from a folder: `sources.latents`."""

    def __init__(self, path: str | Path):
        self.record = record(path)
        self._path = Path(path).expanduser()
        self._part = functools.lru_cache(KNOWN)(functools.partial(_Part, self._path, self.record))

    def __len__(self) -> int:
        return self.record.num

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        number, row = divmod(index, self.record.part)
        found = self._part(number)[row]
        return draw(found, np.random.default_rng(index), (*MOMENTS, *MIRROR))


MOMENTS = ("mean", "std")
MIRROR = ("mirror_mean", "mirror_std")


class _Part:
    """One file, of which a row is read at a time."""

    def __init__(self, folder: Path, cache: Cache, number: int):
        self._file, count = folder / _name(cache, number), len(cache.indices(number))
        self._rows = numpy_files.Indexed(self._file, "moments")
        beside = numpy_files.arrays(self._file, "label", "crc", "sums")
        _check_part(self._file, cache, count, {"moments": self._rows, **beside})
        self._label, self._crc, self.sums = beside.get("label"), beside["crc"], beside["sums"]

    def __getitem__(self, row: int) -> dict[str, Any]:
        moments = self._rows[row]
        label = None if self._label is None else self._label[row]
        if _crc(moments, label) != self._crc[row]:
            raise InputError(f"{self._file} is damaged; delete it, and {AGAIN}")
        found = dict(zip(MOMENTS + MIRROR, moments.reshape(-1, *moments.shape[2:]), strict=False))
        return found if label is None else found | {"label": label[()]}


def with_mirrors(source: Examples) -> Examples:
    """`source`, whose examples `random_mirror` takes.

    Raises:
      InputError: it was prepared without mirror images.
    """
    _mirrored(source[0])
    return source


def random_mirror(features: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A transform: "mean" and "std" [h, w, c] become those of the mirror image with probability 1/2.

    Raises:
      InputError: as of `with_mirrors`.
    """
    mirror = _mirrored(features)
    rest = {name: value for name, value in features.items() if name not in MIRROR}
    return rest | mirror if rng.random() < 0.5 else rest


def _mirrored(features: Mapping[str, Any]) -> dict[str, Any]:
    """The moments of the mirror image, by the names of the image's own."""
    if MIRROR[0] not in features:
        raise InputError(
            "the latents are of images without their mirrors; prepare them with --config.data.flip=True, or train "
            "with --config.data.flip=False"
        )
    return {name: features[other] for name, other in zip(MOMENTS, MIRROR, strict=True)}


def draw(features: dict[str, Any], rng: np.random.Generator, kept: Iterable[str] = ()) -> dict[str, Any]:
    """A transform: "latent" becomes a draw of N(mean, std^2), float32 [h, w, c], in place of "mean" and "std".

    Those in `kept` stay.
    """
    mean, std = (features[name].astype(np.float32) for name in MOMENTS)
    rest = {name: value for name, value in features.items() if name not in MOMENTS or name in kept}
    return rest | {"latent": mean + std * rng.standard_normal(mean.shape, np.float32)}


# ---- Writing.


def known_by(source: Examples, clean: Clean, names: Iterable[str]) -> str:
    """SHA-256 of how many examples there are and of some of them, evenly spaced: of x0 as float16, and labels."""
    some = sorted({int(i) for i in np.linspace(0, len(source) - 1, LOOKED)})
    rows = [source[i] for i in some]
    x0 = np.asarray(clean({name: np.stack([np.asarray(row[name]) for row in rows]) for name in names}), np.float16)
    found = hashlib.sha256(f"{len(source)} {x0.shape}".encode() + x0.tobytes())
    found.update(" ".join(str(int(row["label"])) for row in rows if "label" in row).encode())
    return found.hexdigest()


def check_free(path: Path, cache: Cache) -> None:
    """`InputError` if the folder `path` has latents of other things than `cache` says."""
    found = latent_record.read(path)
    if found is None:
        return
    there, here = (latent_record.as_json(one._replace(about="", statistics=None)) for one in (found, cache))
    differing = [name for name in here if there[name] != here[name]]
    if differing:
        name = differing[0]
        shown = (json.dumps(one[name])[:24] for one in (there, here))
        raise InputError(
            f"{path} holds other latents ({_WORDS[name]}: {next(shown)} there, {next(shown)} here); give another "
            "--out, or remove it"
        )


_WORDS = {
    "first_stage": "parameters of the first stage",
    "images": "images",
    "num": "how many",
    "part": "how many a file has",
    "image": "shape of an image",
    "shape": "shape of a latent",
    "mirrored": "mirror images",
    "labelled": "labels",
    "scaling": "scaling of the first stage",
}


def claim(path: Path, cache: Cache) -> None:
    """Record that the folder `path` is for `cache`, unless it says so already."""
    if latent_record.read(path) is None:
        latent_record.write(path, cache)


def missing(path: Path, cache: Cache, host: int = 0, hosts: int = 1) -> list[int]:
    """The parts that are not there, of those that are `host`'s; a damaged one, of which it is said, counts as such.

    Each part is read; what a killed process left of one is removed.
    """
    absent = []
    for number in range(host, cache.parts, hosts):
        file = path / _name(cache, number)
        try:
            if file.is_file():
                _check_whole(path, cache, number)
                continue
        except InputError as error:
            line(f"{error}: it is made again")
        files.remove_unfinished(path, file.name)
        absent.append(number)
    return absent


def write(path: Path, cache: Cache, number: int, moments: np.ndarray, labels: np.ndarray | None) -> None:
    """Write a part.

    Args:
      path: the folder.
      cache: what it is for.
      number: which part.
      moments: float32 [n, 1 or 2, 2, h, w, c].
      labels: integers [n], or None.

    Raises:
      NotFiniteError: a number is none.
      InputError: one is larger than float16 holds; or it cannot be written.
    """
    first = cache.indices(number).start
    for i, of in enumerate(moments):
        if not np.isfinite(of).all():
            raise NotFiniteError(f"the latents of image {first + i} are not finite; nothing is written of its part")
        if abs(of).max() > HIGHEST:
            raise InputError(
                f"the first stage says {abs(of).max():.3g} of image {first + i}, and float16 ends at {HIGHEST:.0f}; "
                "give one of smaller latents, trained with a heavier rate say"
            )
    kept = moments.astype(np.float16)
    arrays = {"moments": kept, "sums": _sums(kept)}
    labels = None if labels is None else labels.astype(np.int64)
    crcs = [_crc(of, None if labels is None else labels[i]) for i, of in enumerate(kept)]
    arrays |= {"crc": np.array(crcs, np.uint32)} | ({} if labels is None else {"label": labels})
    files.write(path / _name(cache, number), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def finish(path: Path, cache: Cache) -> Cache:
    """Add the statistics to the record, of all parts; from here on `record` knows the folder.

    The variance of draws is that of the means and the mean of the variances.

    Raises:
      InputError: a part is missing or damaged, or all latents are the same.
    """
    _check_complete(path, cache)
    sums = sum(_Part(path, cache, number).sums for number in range(cache.parts))
    entries = cache.num * math.prod(cache.moments[:1]) * math.prod(cache.shape[:-1])

    def of(sums, entries):
        mean, square, var = sums / entries
        return mean, np.sqrt(np.maximum(square - mean**2, 0) + var)

    mean, std = of(np.sum(sums, -1), entries * cache.shape[-1])
    if not std > 0:
        raise InputError(f"all latents in {path} are the same: this first stage tells no image from another")
    channels = of(sums, entries)
    finished = cache._replace(statistics=Statistics(float(mean), float(std), *channels))
    latent_record.write(path, finished)
    return finished


# ---- Both.


def _name(cache: Cache, number: int) -> str:
    return f"{number:0{NUMBERED}d}-of-{cache.parts:0{NUMBERED}d}.npz"


def _check_complete(path: Path, cache: Cache) -> None:
    """`InputError` unless all parts are there. It looks at what is there, not for what a record may claim."""
    names = {file.name for file in path.glob("*-of-*.npz")}
    there = sum(name == _name(cache, int(name[:NUMBERED])) for name in names if name[:NUMBERED].isdigit())
    if there < cache.parts:
        raise InputError(f"{cache.parts - there} of {cache.parts} parts are missing in {path}; {AGAIN}")


def _crc(moments: np.ndarray, label: np.ndarray | None) -> int:
    found = zlib.crc32(np.ascontiguousarray(moments).data)
    return found if label is None else zlib.crc32(label.tobytes(), found)


def _sums(moments: np.ndarray) -> np.ndarray:
    """float64 [3, c]."""
    channels = moments.shape[-1]
    mean, std = (moments[:, :, i].reshape(-1, channels).astype(np.float64) for i in range(2))
    return np.stack([x.sum(0) for x in (mean, mean**2, std**2)])


def _check_part(file: Path, cache: Cache, count: int, arrays: Mapping[str, Any]) -> None:
    wanted: dict[str, tuple] = {
        "moments": (np.float16, (count, *cache.moments)),
        "crc": (np.uint32, (count,)),
        "sums": (np.float64, (3, cache.shape[-1])),
    }
    if cache.labelled:
        wanted["label"] = (np.int64, (count,))
    for name, (dtype, shape) in wanted.items():
        if name not in arrays or arrays[name].dtype != dtype or arrays[name].shape != shape:
            raise InputError(f"{file} holds no {name} of {np.dtype(dtype)} {list(shape)}; delete it, and {AGAIN}")
    if "label" in arrays and not cache.labelled:
        raise InputError(f"{file} holds labels, of which the record says nothing; delete it, and {AGAIN}")


def _check_whole(folder: Path, cache: Cache, number: int) -> None:
    """`InputError` for a part that is damaged."""
    _Part(folder, cache, number)
    numpy_files.arrays(folder / _name(cache, number))  # where each array's CRC-32 is met
