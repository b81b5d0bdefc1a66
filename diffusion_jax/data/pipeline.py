"""From a source to batches: shuffled, endless, the same every time, and resumable at any batch.

The k-th batch is a pure function of (source, seed, transforms, batch_size, k). Threads and prefetching change
only when it is computed, and hosts only who computes which part of it. So a position is one integer,
`get_state()` is ``{"next_index": k}``, and a run may resume on another number of hosts.
"""

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Examples


def batches(
    source: Examples,
    *,
    batch_size: int,
    seed: int,
    transforms: Sequence[Any] = (),
    host: int = 0,
    hosts: int = 1,
    threads: int = 4,
    prefetch: int = 8,
):
    """An endless iterator over shuffled batches; every epoch has its own order.

    Batches run on across the end of an epoch: nothing is dropped, and a source may be smaller than a batch.

    Args:
      source: random access, ``source[i] -> {"image": uint8 [H, W, C], ...}``; see `sources`.
      batch_size: examples in the global batch, a multiple of `hosts`.
      seed: integer in 0..2**32 - 1 that decides the order and the transforms' randomness.
      transforms: functions ``(features, rng) -> features`` of one example and a `numpy.random.Generator`,
        applied in turn. The generator is seeded by the example's position in the stream: a transform draws
        the same whatever the batch size, hosts or threads. It must not write into the arrays it is given.
      host, hosts: this process and their number. This host's k-th batch is its block of the global k-th one:
        concatenated over ``host = 0 .. hosts - 1`` they are the batch that one host alone would draw.
      threads: reading threads; 0 reads when asked, in the caller's thread.
      prefetch: batches kept ready by those threads (NumPy, on the host), at least `threads`.

    Returns:
      A `grain.DatasetIterator` of {"image": uint8 [batch_size // hosts, H, W, C], ...} (NumPy), whose
      `get_state()` and `set_state(state)` speak JSON.

    Raises:
      InputError: an empty source, a batch size the hosts cannot share, or a number out of range.
    """
    _check(source, batch_size)
    if hosts < 1 or not 0 <= host < hosts:
        raise InputError(f"host {host} of {hosts} does not exist; host counts from 0 to hosts - 1")
    if batch_size % hosts:
        raise InputError(f"batch_size {batch_size} does not split over {hosts} hosts; make it a multiple")
    if not 0 <= seed < 2**32:
        raise InputError(f"data seed {seed} is out of range; give an integer from 0 to 2**32 - 1")

    # Shuffle and random_map are seeded by their place in this chain: change it and old runs cannot resume.
    examples = grain.MapDataset.source(source).seed(seed).shuffle()
    for transform in transforms:
        examples = examples.random_map(transform)
    # drop_remainder: an endless stream has none, and rounding sys.maxsize up would overflow len().
    shards = examples.repeat().batch(batch_size // hosts, drop_remainder=True)
    return iter(shards[host::hosts].to_iter_dataset(_read_options(threads, prefetch)))


def position(count: int) -> dict:
    """The state of an iterator of `batches` that has given so many; for its `set_state`."""
    return {"next_index": count}


def epoch(source: Examples, *, batch_size: int, threads: int = 4, prefetch: int = 8):
    """One pass over `source` in its own order, for evaluation.

    Returns:
      A finite iterator of {"image": uint8 [b, H, W, C], ...}; b = batch_size, and less in the last batch if
      `batch_size` does not divide ``len(source)``.
    """
    _check(source, batch_size)
    examples = grain.MapDataset.source(source)
    return iter(examples.batch(batch_size).to_iter_dataset(_read_options(threads, prefetch)))


def random_flip(features: dict[str, Any], rng: np.random.Generator):
    """A transform: mirrors "image" [H, W, C] left to right with probability 1/2."""
    mirrored = rng.random() < 0.5
    image = features["image"]
    return features | {"image": image[:, ::-1] if mirrored else image}


def random_crop(size: tuple[int, int]):
    """A transform: of "image" [H, W, C] a part of `size`, (height, width), anywhere in it with one probability."""

    def crop(features: dict[str, Any], rng: np.random.Generator):
        image = features["image"]
        top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(image.shape, size, strict=False))
        return features | {"image": image[top : top + size[0], left : left + size[1]]}

    return crop


def random_shift(most: int):
    """A transform: moves "image" [H, W, C] by up to `most` pixels up or down, left or right; the border repeats."""

    def shift(features: dict[str, Any], rng: np.random.Generator):
        image = features["image"]
        padded = np.pad(image, ((most, most), (most, most), (0, 0)), "edge")
        return random_crop(image.shape[:2])(features | {"image": padded}, rng)

    return shift


def random_binarize(features: dict[str, Any], rng: np.random.Generator):
    """A transform: each entry of "image" becomes 255 with probability image / 255, else 0."""
    image = features["image"]
    return features | {"image": np.where(255 * rng.random(image.shape) < image, 255, 0).astype(np.uint8)}


def _check(source, batch_size):
    if len(source) < 1:
        raise InputError("the data source is empty; give one with at least 1 image")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size} is too small; give at least 1")


def _read_options(threads, prefetch):
    if threads < 0 or prefetch < threads:
        raise InputError(f"{threads} threads cannot fill {prefetch} batches; give 0 <= threads <= prefetch")
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
