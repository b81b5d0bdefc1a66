"""Images through the encoder of a first stage, over all devices and hosts, into a folder of latents."""

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from diffusion_jax.app import hosts, sampling
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Examples, SampleFn, Tree
from diffusion_jax.data import latents, pipeline, sources
from diffusion_jax.data.latents import Cache
from diffusion_jax.methods.autoencoders import opened
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.methods.autoencoders.opened import Opened
from diffusion_jax.training.experiment import Data
from diffusion_jax.training.loop import check_example

KEPT = {"image", "label"}
COMPARED = 8  # images by which the ranges of two kinds of data are compared


def images(data: Data, split: str) -> Examples:
    """The images of a split of a config's data.

    Raises:
      InputError: there is no such split, it is empty, or the data are no images with at most labels beside them.
    """
    if "image" not in data.example:
        raise InputError(
            f"the config trains on {', '.join(data.example)}, not on images; give one whose images are to be encoded"
        )
    if beside := sorted(data.example.keys() - KEPT):
        raise InputError(f"the config's images have {', '.join(beside)} beside them, and only labels are kept")
    source = data.source(split)
    if not len(source):
        raise InputError(f"the {split} split is empty; give one with at least 1 image")
    check_example(source, data.example)
    label = np.asarray(source[0].get("label", 0))
    if label.shape or label.dtype.kind not in "iu":
        raise InputError(f"the data's label is {label.dtype} {list(label.shape)}; labels are whole numbers")
    return source


def mirrored(data: Data) -> bool:
    """Whether training mirrors images at random.

    Raises:
      InputError: it changes them otherwise at random, so that no latents of them can be kept.
    """
    others = [transform for transform in data.transforms if transform is not pipeline.random_flip]
    if others:
        raise InputError(
            "the config's images are changed at random by more than mirroring, so their latents are never the same; "
            "give a config without those transforms"
        )
    return bool(data.transforms)


def planned(stage: Opened, params: Tree, data: Data, source: Examples, part: int) -> Cache:
    """What will be known of the latents of `source`, before one is computed.

    Args:
      stage: the first stage.
      params: its parameters.
      data: of a config whose images it encodes.
      source: of one split (`images`).
      part: images of a file.

    Raises:
      InputError: the images are not in its range, of a size that it does not take, or changed at random.
    """
    opened.check_range(stage, data.clean, first_rows(data, source, COMPARED))
    image = data.example["image"].shape
    return Cache(
        first_stage=opened.digest(params),
        images=latents.known_by(source, data.clean, data.example),
        num=len(source),
        part=part,
        image=image,
        shape=opened.latent_shape(stage, params, image),
        mirrored=mirrored(data),
        labelled="label" in source[0],
        scaling=stage.scaling,
        about=stage.about,
    )


def encode(
    path: Path, cache: Cache, stage: Opened, params: Tree, data: Data, source: Examples, batch: int, threads: int
) -> Cache:
    """Make the parts of the folder `path` that are missing: each host its own, and host 0 their statistics.

    Parts are written in turn, each whole or not at all. What is in them depends on `batch` alone, up to rounding, and
    neither on devices and hosts nor on interruptions.

    Args:
      path: the folder; no other process writes there.
      cache: what it is for (`planned`, whose arguments the next ones are).
      batch: images that a device encodes at a time.
      threads: that read images.

    Returns:
      `cache` with its statistics.

    Raises:
      InputError: a latent is too large for float16, an image cannot be read, or a file cannot be written.
      NotFiniteError: a latent is not finite.
      RunError: another host stopped.
    """
    host = jax.process_index()

    def own() -> None:
        if host == 0:
            latents.claim(path, cache)
        wanted = latents.missing(path, cache, host, jax.process_count())
        if wanted:
            _check_space(path, cache)
            compute = opened.moments(stage, data.clean, cache.mirrored)
            _fill(path, cache, wanted, compute, params, data, source, min(batch, cache.part, cache.num), threads)

    hosts.together(own)
    return latents.finish(path, cache) if host == 0 else cache


def _check_space(path: Path, cache: Cache):
    """Say that the disk is full before it is."""
    path.mkdir(parents=True, exist_ok=True)  # another host may be about to
    there = sum(file.stat().st_size for file in path.glob("*.npz"))
    needed, free = cache.nbytes - there, shutil.disk_usage(path).free
    if needed > free:
        raise InputError(
            f"{needed / 1e9:.3g} GB of latents go to {path}, where {free / 1e9:.3g} GB are free; give another --out"
        )


def _fill(path: Path, cache: Cache, wanted: Sequence[int], compute: SampleFn, params, data, source, each, threads):
    """Encode and write the parts `wanted`, `each` images at a time on a device: never those of two parts."""
    rows = np.concatenate([_rows(cache, number, each) for number in wanted])
    parallel = sampling.spread(params, min(len(rows), each * len(jax.local_devices())))
    size = each * len(parallel.devices)
    rows = np.pad(rows, (0, -len(rows) % size), mode="edge")
    names = {*data.example, *(["label"] if cache.labelled else [])}
    read = sources.Mapped(rows, lambda i: {name: np.asarray(source[int(i)][name]) for name in names})
    batches = pipeline.epoch(read, batch_size=size, threads=threads, prefetch=max(2, threads))
    run, params = parallel.sample(compute), parallel.place(params)

    def encoded() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for batch in batches:
            images = {name: batch[name] for name in data.example}
            found = run(params, images)  # type: ignore[arg-type]  # a batch, in place of keys
            labels = batch.get("label")
            for start in range(0, size, each):
                some = np.s_[start : start + each]
                yield found[some], None if labels is None else labels[some]

    done = encoded()
    mine = range(jax.process_index(), cache.parts, jax.process_count())
    total, left = (sum(len(cache.indices(number)) for number in numbers) for numbers in (mine, wanted))
    with tqdm(total=total, initial=total - left, unit="image", dynamic_ncols=True) as bar:
        for number in wanted:
            count, found = len(cache.indices(number)), []
            for _ in range(math.ceil(count / each)):
                found.append(next(done))
                bar.update(min(each, count - each * (len(found) - 1)))
            moments, labels = zip(*found, strict=True)
            kept = None if labels[0] is None else np.concatenate(labels)[:count]
            latents.write(path, cache, number, np.concatenate(moments)[:count], kept)


def _rows(cache: Cache, number: int, each: int) -> np.ndarray:
    """The images of a part; the last again and again until `each` divides their number."""
    some = np.array(cache.indices(number))
    return np.pad(some, (0, -len(some) % each), mode="edge")
