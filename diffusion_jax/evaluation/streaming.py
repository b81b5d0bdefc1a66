"""Features of images, batch by batch: compiled once, over all devices of this host."""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from tqdm import tqdm

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.data import images as pixels
from diffusion_jax.evaluation import frechet
from diffusion_jax.evaluation.extractors import FEATURES, Extractor
from diffusion_jax.evaluation.frechet import Moments
from diffusion_jax.parallel.replicated import DataParallel

SLACK = 1 / 255  # half a level: how far beyond [-1, 1] a float image may be, and still be rounded to one in it
CHUNK = 1000  # rows of features that are added to moments at a time: a covariance costs more than the features


def extract(extractor: Extractor, batches: Iterable, size: int = 64, total: int | None = None) -> dict:
    """Everything the extractor says of all images, in their order, float NumPy arrays [N, D] by name.

    Arguments and errors as of `stream`.
    """
    parts = list(stream(extractor, batches, size, total))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def moments(
    extractor: Extractor,
    batches: Iterable,
    names: Sequence[str] = (FEATURES,),
    size: int = 64,
    total: int | None = None,
) -> dict[str, Moments]:
    """Moments of what the extractor says under `names`: for Fréchet distances in memory that does not grow.

    Further arguments and errors as of `stream`.

    Raises:
      InputError: the extractor does not give one of `names`.
    """
    found: dict[str, Any] = {}
    waiting: list = []

    def add():
        for name in names:
            new = frechet.moments(np.concatenate([part[name] for part in waiting]))
            found[name] = found[name].merge(new) if name in found else new
        waiting.clear()

    for part in stream(extractor, batches, size, total):
        missing = [name for name in names if name not in part]
        if missing:
            raise InputError(f"{extractor.name} gives {', '.join(part)}, but no {', '.join(missing)}")
        waiting.append(part)
        if sum(len(part[FEATURES]) for part in waiting) >= CHUNK:
            add()
    if waiting:
        add()
    return found


def stream(
    extractor: Extractor, batches: Iterable, size: int = 64, total: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """What the extractor says, batch by batch, with a progress bar.

    Args:
      extractor: what looks at the images.
      batches: of images [b, H, W, C] of one shape, each b as it likes; a whole array is `[array]`. Of uint8; or float
        in [-1, 1], which are rounded to uint8 first, as images in files are.
      size: images at a time over all devices, rounded up to a multiple of their number. The last images are filled up
        to it, so that one program is compiled.
      total: how many images there will be, for the bar.

    Yields:
      Name -> NumPy array [n, D] of float32, or float64 where the extractor gives that; n = `size` but for the last.

    Raises:
      InputError: no images; images of another shape, type or range than the extractor takes, not finite, or of
        several shapes; or the extractor returns something else than a dictionary of [B, D] with "features".
      RunError: features that are not finite.
    """
    if size < 1:
        raise InputError(f"batches of {size} images; give 1 or more")
    parallel, compute = _machine()
    count = len(parallel.devices)
    size = math.ceil(size / count) * count
    function = extractor.features
    function = parallel.place(function if isinstance(function, Partial) else Partial(function))
    done = 0
    with tqdm(total=total, unit="image", desc=extractor.name, dynamic_ncols=True) as bar:
        for images in _regrouped(_checked(extractor, batches), size):
            if not done:
                _check_promise(extractor.name, function, (size // count, *images.shape[1:]))
            rows = np.arange(size) % len(images)
            features = compute(function, images[rows])
            # NumPy cannot do much with bfloat16.
            wide = {name: array.astype(np.promote_types(array.dtype, np.float32)) for name, array in features.items()}
            part = {name: array[: len(images)] for name, array in wide.items()}
            for name, array in part.items():
                if not np.isfinite(array).all():
                    row = done + int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
                    raise RunError(f"{extractor.name}: {name} of image {row} are not finite; look at its weights")
            yield part
            done += len(images)
            bar.update(len(images))
    if not done:
        raise InputError("no images to look at; give at least one batch")


@functools.cache
def _machine():
    """The devices, and a function that is compiled for each extractor and shape once in a process."""
    parallel = DataParallel()
    return parallel, parallel.sample(lambda function, images: function(images))


def _regrouped(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same images in batches of `size`; the last may be smaller."""
    rest = None
    for images in batches:
        rest = images if rest is None else np.concatenate([rest, images])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest is not None and len(rest):
        yield rest


def _checked(extractor: Extractor, batches: Iterable) -> Iterator[np.ndarray]:
    """The batches as uint8."""
    shape = None
    for images in batches:
        images = np.asarray(images)
        if images.ndim != 4:
            raise InputError(f"images {list(images.shape)}; give batches [B, H, W, C], a whole array as [array]")
        check_shape(extractor, images.shape[1:])
        if shape not in (None, images.shape[1:]):
            raise InputError(f"images of {images.shape[1:]} after some of {shape}; all must be of one shape")
        shape = images.shape[1:]
        yield _levels(images)


def check_shape(extractor: Extractor, shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless the extractor takes images of `shape`, [H, W, C]."""
    if any(wanted not in (None, found) for wanted, found in zip(extractor.shape, shape, strict=True)):
        wanted = " x ".join("any" if n is None else str(n) for n in extractor.shape)
        found = " x ".join(map(str, shape))
        raise InputError(f"images of {found}; {extractor.name} takes {wanted} (height x width x channels)")


def _levels(images: np.ndarray) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images of {images.dtype}; give uint8 in 0 to 255, or float in [-1, 1]")
    if not np.isfinite(images).all():
        raise InputError("images that are not finite; look at what made them")
    if images.size and not -1 - SLACK <= images.min() <= images.max() <= 1 + SLACK:
        raise InputError(
            f"float images from {images.min():.4g} to {images.max():.4g}; here they are in [-1, 1]: scale them"
        )
    return pixels.to_uint8(images)


def _check_promise(name: str, function, shape) -> None:
    """Raise `InputError` unless `function` returns what it should for images of `shape`; nothing is computed."""
    features = jax.eval_shape(function, jax.ShapeDtypeStruct(shape, np.uint8))
    remedy = f'return {{"{FEATURES}": float [B, D]}}, and more by name'
    if not isinstance(features, dict) or FEATURES not in features:
        raise InputError(f"{name} returns {jax.tree.map(lambda x: x.shape, features)}; {remedy}")
    for key, array in features.items():
        fits = len(array.shape) == 2 and array.shape[0] == shape[0] and jnp.issubdtype(array.dtype, jnp.floating)
        if not fits:
            raise InputError(f"{name}: {key} is {array.dtype} {list(array.shape)} for {shape[0]} images; {remedy}")
