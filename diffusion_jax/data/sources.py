"""Random-access image sources: ``len(source)`` and ``source[i] -> {"image": uint8 [H, W, C], ...}``.

A source knows its images and nothing of order, batches or hosts; that is `pipeline`'s part. Anything with
``__len__`` and a thread-safe ``__getitem__`` is a source, so a project's own needs no registration.
"""

import functools
import io
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import Examples, Source
from diffusion_jax.data import latents as kept_latents
from diffusion_jax.data import pictures, pipeline


class Arrays:
    """Images that are already in memory.

    Args:
      image: uint8 [N, H, W, C].
      **features: further arrays [N, ...], such as ``label``.
    """

    def __init__(self, image, **features):
        self._features = {"image": _read_only(image)} | {k: _read_only(v) for k, v in features.items()}
        lengths = {name: len(array) for name, array in self._features.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"features have different lengths {lengths}; give one entry for each image")

    def __len__(self):
        return len(self._features["image"])

    def __getitem__(self, index):
        return {name: array[index] for name, array in self._features.items()}


class Mapped:
    """A source seen through a function: ``Mapped(records, read)[i] = read(records[i])``."""

    def __init__(self, records, read):
        self._records, self._read = records, read

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        return self._read(self._records[index])


def binarized(source: Examples) -> Mapped:
    """`source`, of whose images each entry is 255 with probability image / 255, else 0: one draw of each example."""

    def read(index):
        return pipeline.random_binarize(source[index], np.random.default_rng(index))

    return Mapped(range(len(source)), read)


def with_labels(source: Examples, classes: int) -> Mapped:
    """`source`, of whose examples each has a "label" of 0, ..., classes - 1: reading another is an `InputError`."""

    def read(index):
        example = source[index]
        if "label" not in example:
            raise InputError(f"the data has no label, only {', '.join(example)}; give a source that has it")
        if not 0 <= example["label"] < classes:
            raise InputError(
                f"example {index} has the label {example['label']}, and the network knows 0 to {classes - 1}; "
                "mend the data, or give the network more classes"
            )
        return example

    return Mapped(range(len(source)), read)


def with_tokens(source: Examples, name: str, vocab: int) -> Mapped:
    """`source`, whose arrays `name` are of tokens 0, ..., vocab - 1: reading another is an `InputError`."""

    def read(index):
        example = source[index]
        tokens = np.asarray(example[name])
        if not np.issubdtype(tokens.dtype, np.integer):
            raise InputError(f"example {index} has {name} of {tokens.dtype}; tokens are integers, convert them")
        beyond = tokens[(tokens < 0) | (tokens >= vocab)]
        if beyond.size:
            raise InputError(
                f"example {index} has the token {beyond[0]} in {name}, and the network knows 0 to {vocab - 1}; "
                "mend the data, or give the network a larger vocabulary"
            )
        return example

    return Mapped(range(len(source)), read)


def _read_only(array):
    """A view that cannot be written through: a batch may alias the source, and must not change it."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


_DIGITS_TRAIN = 1200


def digits(split: str = "train"):
    """scikit-learn's handwritten digits (1797 of 8 x 8): a real data set that needs no download.

    Args:
      split: "train" (1200), "test" (597, disjoint from train) or "all".

    Returns:
      A source of {"image": uint8 [8, 8, 1] in 0..255, "label": int64 in 0..9}.
    """
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    data = load_digits()
    # The file is ordered by writer: without a permutation the test split would be other people's hands.
    order = np.random.default_rng(0).permutation(len(data.images))
    splits = {"train": order[:_DIGITS_TRAIN], "test": order[_DIGITS_TRAIN:], "all": order}
    if split not in splits:
        raise InputError(f"digits has no split {split!r}; choose one of {', '.join(splits)}")
    chosen = splits[split]
    image = np.round(data.images[chosen] * (255 / 16)).astype(np.uint8)[..., None]
    return Arrays(image, label=data.target[chosen].astype(np.int64))


SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def folder(path: str | Path, size: int | tuple[int, int], channels: int = 3):
    """The images in a folder and the folders below it, in order of their relative paths.

    Each is turned by its EXIF orientation, cut about its centre to the shape of `size`, and shrunk with
    antialiasing; transparency is dropped. Every header is read here (about 20 microseconds a file): a wrong
    file shows before training, though one that is damaged further in is named only when its turn comes.

    Args:
      path: the folder; which files count is said by `image_files`, on standard error as well.
      size: the side of a square, or (height, width). Smaller images are refused.
      channels: 3 (RGB) or 1 (grey).

    Returns:
      A source of {"image": uint8 [H, W, channels]}.

    Raises:
      InputError: no such folder, no image in it, one that is unreadable or too small, a bad size or channels.
    """
    return pictures_of(image_files(path), size, channels)


def pictures_of(
    files: Sequence[Path], size: int | tuple[int, int], channels: int = 3, shrink: pictures.Shrink = pictures.fit
) -> Mapped:
    """The images in `files`, as `folder` reads them; other arguments, result and errors as there.

    `shrink` cuts and shrinks them: `pictures.fit`, as `folder` does, or `pictures.cover`, which cuts nothing.
    """
    size = _height_width(size)
    if channels not in pictures.MODES:
        raise InputError(f"images cannot have {channels} channels; give 3 (RGB) or 1 (grey)")
    for file in files:
        with pictures.opened_file(file) as picture:
            # Sorted, for EXIF may yet turn it, and finding that out can cost a decoding: `fit` looks again.
            pictures.check_size(sorted(picture.size), sorted(size), file)

    def read(file):
        picture = pictures.decode(pictures.opened_file(file), channels)
        return {"image": pictures.pixels(shrink(picture, size, file))}

    return Mapped(files, read)


def image_files(path: str | Path, beside: Collection[str] = ()):
    """The image files in a folder and the folders below it, linked ones too, in order of their relative paths.

    A file counts if its name ends as in `SUFFIXES`. What is hidden does not: names of files and of folders below
    `path` that begin with a dot, and __MACOSX, hold copies and notes of other programs. A folder that is met twice
    counts once. One line on standard error says how many files count, and what does not; of files with an ending of
    `beside` it is silent.

    Raises:
      InputError: no such folder, one that cannot be read, or no image in it.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give one that holds images")
    found, skipped = _walked(root)
    skipped = Counter({what: count for what, count in skipped.items() if what.removeprefix("of ") not in beside})
    others = ", ".join(f"{count} {what}" for what, count in sorted(skipped.items()))
    if not found:
        more = f", where there are {others}" if others else ""
        raise InputError(f"folder {root} holds no images{more}; put {', '.join(SUFFIXES)} files into it")
    _say(f"{root}: {len(found)} images" + (f"; left out: {others}" if others else ""))
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _walked(root):
    """Image files, and how many of what else."""
    found, skipped, seen = [], Counter(), set()

    def refuse(error):
        raise InputError(f"cannot read folder {error.filename} ({error.strerror}); make it readable or remove it")

    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # links may lead in circles
            skipped["linked again"] += 1
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        skipped["hidden"] += sum(map(_is_hidden, [*folders, *names]))
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in (name for name in names if not _is_hidden(name)):
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES:
                found.append(Path(folder, name))
            else:
                skipped[f"of {suffix}" if suffix else "without an ending"] += 1
    return found, +skipped


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


@functools.cache
def _say(message):
    """Once in a process, however often its folder is read."""
    line(message)


def cifar10(data_dir: str = "") -> Source:
    """CIFAR-10 of TFDS (162 MB), `split -> source` (`tfds_images`); it has labels, 0 to 9."""
    return lambda split: tfds_images("cifar10", split, data_dir or None)


def mnist(data_dir: str = "") -> Source:
    """MNIST of TFDS (12 MB), `split -> source` (`tfds_images`); it has labels, 0 to 9."""
    return lambda split: tfds_images("mnist", split, data_dir or None)


def imagenet64(data_dir: str = "") -> Source:
    """ImageNet at 64x64 of TFDS's imagenet_resized (some 13 GB), as `cifar10`, with labels 0 to 999."""
    splits = {"train": "train", "test": "validation"}  # this set calls it so
    return lambda split: tfds_images("imagenet_resized/64x64", splits[split], data_dir or None)


def imagenet256(data_dir: str = "") -> Source:
    """ImageNet of TFDS, cut and shrunk to 256x256, as `cifar10`, with labels 0 to 999; it is prepared by hand."""
    splits = {"train": "train", "test": "validation"}
    return lambda split: tfds_images("imagenet2012", splits[split], data_dir or None, size=256)


def tfds_images(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    size: int | tuple[int, int] | None = None,
    transform: Callable[[Any], Any] = lambda picture: picture,
):
    """The images (and labels) of a TensorFlow Datasets set, read without TensorFlow.

    For example "mnist", "cifar10", "celeb_a_hq/256", "lsun/bedroom", "lsun/church_outdoor", "lsun/cat". A
    set that is not in `data_dir` yet is downloaded and prepared there. Preparing may take TensorFlow, and
    does for these; reading never does. LSUN also takes tensorflow-io, and CelebA-HQ archives made by hand.

    Args:
      name: "set", "set/config" or "set/config:version".
      split: a TFDS split such as "train" or "train[:90%]".
      data_dir: where prepared sets lie; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
      size: side of a square or (height, width) to cut and shrink to; None keeps the images as they are.
      transform: function of a `PIL.Image.Image` to another, before `size` is met: a tighter crop, say.

    Returns:
      A source of {"image": uint8 [H, W, C]}, with "label" (int) where the set has one. C is 1 or 3.

    Raises:
      InputError: no such set or split, no TensorFlow to prepare it, no network, or no images of one size.
    """
    import tensorflow_datasets as tfds  # takes a second

    size = None if size is None else _height_width(size)
    try:
        records = tfds.data_source(
            name,
            split=split,
            data_dir=data_dir,
            # The one format that can be read at random and without TensorFlow.
            builder_kwargs={"file_format": "array_record"},
            # TFDS decodes with OpenCV where it finds it: a JPEG's pixels would depend on the machine.
            decoders={"image": tfds.decode.SkipDecoding()},
        )
    except ImportError as error:
        reason = str(error).splitlines()[-1]
        raise InputError(
            f"preparing TFDS {name!r} takes a package that is missing ({reason}); run it once again after "
            "pip install 'diffusion_jax[tfds]' (downloads are kept)"
        ) from error
    except Exception as error:  # from ValueError to AssertionError and KeyError, TFDS has no type of its own
        reason = (str(error) or repr(error)).splitlines()[0].strip(" .:")
        raise InputError(
            f"cannot get {split!r} of TFDS {name!r} ({reason}); prepare it with tfds build {name} "
            "--file_format=array_record --data_dir=DIR, on a machine that can, and give data_dir=DIR"
        ) from error

    features = records.dataset_info.features
    if "image" not in features:
        raise InputError(f"TFDS {name!r} has no 'image', only {', '.join(features)}; choose another set")
    height, width, stored = features["image"].shape
    if size is None and None in (height, width):
        raise InputError(f"the images of TFDS {name!r} differ in size; give the size to shrink them to")
    channels = 1 if stored == 1 else 3
    kept = [feature for feature in ("label",) if feature in features]  # text and ids make no arrays

    def read(record):
        opening = pictures.opened(io.BytesIO(record["image"]), f"in TFDS {name!r}")
        picture = transform(pictures.decode(opening, channels))
        if size is not None:
            picture = pictures.fit(picture, size, f"in TFDS {name!r}")
        return {"image": pictures.pixels(picture)} | {feature: record[feature] for feature in kept}

    return Mapped(records, read)


def lsun(category: str, data_dir: str | Path | None = None, size: int = 256) -> Source:
    """`split -> source` of LSUN's "bedroom", "cat" or "church_outdoor", whose test split TFDS calls validation."""
    splits = {"train": "train", "test": "validation"}
    return lambda split: tfds_images(f"lsun/{category}", splits[split], data_dir, size)


def latents(path: str | Path) -> "kept_latents.Latents":
    """What a first stage makes of images, as `python -m diffusion_jax.prepare` keeps it, read as it is needed.

    Args:
      path: the folder of a split, OUT/train say.

    Returns:
      A source of {"mean", "std": float16 [h, w, c], "latent": float32 [h, w, c]}: the moments of an image's latent
      and one draw of it, always the same; for training the transform `data.latents.draw` draws anew. Where mirror
      images were prepared, also "mirror_mean" and "mirror_std", for `data.latents.random_mirror`, and where there are
      labels, "label" (int64). Its `record` says what they are (`data.latent_record.Cache`).

    Raises:
      InputError: there are no latents, not all of them yet, or a file is damaged; also when an example is read.
    """
    return kept_latents.Latents(path)


def _height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a size given as an int, for a square, or as a pair."""
    height, width = np.broadcast_to(size, 2).tolist()
    if min(height, width) < 1:
        raise InputError(f"image size {size} is not possible; give at least 1 pixel")
    return height, width
