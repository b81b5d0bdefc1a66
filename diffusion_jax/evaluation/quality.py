"""All measures of a set of images, and the mean likelihood of held-out data: what evaluations are made of."""

import hashlib
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diffusion_jax.core import rng
from diffusion_jax.core.errors import NotFiniteError, RunError
from diffusion_jax.core.protocols import Examples, LikelihoodFn, Parallel, Tree
from diffusion_jax.diffusion.likelihood import ENDINGS
from diffusion_jax.evaluation import streaming
from diffusion_jax.evaluation.extractors import Extractor
from diffusion_jax.evaluation.image_store import Images
from diffusion_jax.evaluation.measures import MEASURES
from diffusion_jax.parallel.replicated import DataParallel


def features(extractor: Extractor, images: Images, folder: Path, size: int = 64) -> dict[str, np.ndarray]:
    """Everything the extractor says of a set, name -> [N, D], on the disk of `folder`.

    Images are read and features written part by part, and the measures read them so: memory does not grow with N.

    Raises:
      RunError: there is no room for them.
    """
    arrays, done = {}, 0
    for part in streaming.stream(extractor, images.parts(), size, images.count):
        for name, x in part.items():
            if name not in arrays:
                arrays[name] = _on_disk(folder, (images.count, x.shape[1]), x.dtype)
            arrays[name][done : done + len(x)] = x
        done += len(x)
    return arrays


def _on_disk(folder: Path, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An array in a file without a name: another process cannot change it, and a killed one leaves nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error now, and not a signal later
                os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * dtype.itemsize))
            return np.memmap(file, dtype, "w+", shape=shape)
    except OSError as error:
        size = f"{math.prod(shape) * dtype.itemsize / 2**20:.0f} MiB"
        raise RunError(f"no {size} for features in {folder} ({error.strerror}); make room there") from error


def all_measures(real: Mapping[str, np.ndarray], generated: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every measure that the extractor's arrays allow."""
    return {m.name: float(m.of(real, generated)) for m in MEASURES if m.possible(real, generated)}


def digest(source: Examples, example: Mapping, count: int) -> str:
    """SHA-256 of what is used of the first `count` examples of a source."""
    found = hashlib.sha256()
    for i in range(count):
        row = source[i]
        for name in sorted(example):
            array = np.ascontiguousarray(row[name])
            found.update(f"{name} {array.dtype} {array.shape}".encode())
            found.update(array.tobytes())
    return found.hexdigest()


# What may be said of an example's likelihood, the parts before their sums: [B], and `terms` [B, N].
PARTS = ("prior", "terms", "distortion", "rate", "error", "noise", "evaluations", "total")
ENDING = "ending"  # how its solver ended, an index into `likelihood.ENDINGS`


def likelihood(
    function: LikelihoodFn,
    params: Tree,
    data: Any,
    source: Examples,
    count: int,
    batch: int,
    seed: int,
    parallel: Parallel | None = None,
) -> dict[str, float | np.ndarray]:
    """Means over the first `count` examples of a source, batch by batch over all devices.

    Args:
      function: `(params, keys [B], x0, *cond) -> NamedTuple` with `total` [B], bits an entry; also those of `PARTS`
        that it has.
      params: the network's.
      data: `experiment.Data`, of which x0 and cond of examples are read.
      source: of examples.
      count: how many; at least 1.
      batch: at a time, over all devices.
      seed: of the noise; example i's depends on it and on i alone.
      parallel: what compiles for the devices (`sharded.parallel_for`); None for `DataParallel()`.

    Returns:
      "total" and the other means, "terms" [N], and the "standard_error" of the total.

    Raises:
      NotFiniteError: of an example something is not finite: which, of which example, and why, where that is known.
    """

    def parts_of(params, keys, x0, *cond):
        found = function(params, keys, x0, *cond)
        return {name: getattr(found, name) for name in (*PARTS, ENDING) if hasattr(found, name)}

    whole = _of_each(parts_of, params, data, source, count, batch, seed, parallel)
    means = {name: x.mean(0) if x.ndim > 1 else float(x.mean()) for name, x in whole.items()}
    return means | {"standard_error": float(whole["total"].std() / math.sqrt(count))}


def survey(
    asked: Any,
    params: Tree,
    data: Any,
    source: Examples,
    count: int,
    batch: int,
    seed: int,
    parallel: Parallel | None = None,
) -> dict[str, float]:
    """What `asked`, an `experiment.Survey`, finds in the first `count` examples; the rest as of `likelihood`."""
    return asked.summary(_of_each(asked.each, params, data, source, count, batch, seed, parallel))


def _of_each(function, params, data, source, count, batch, seed, parallel) -> dict[str, np.ndarray]:
    """`function(params, keys, x0, *cond)`, a dictionary of [B, ...], of the first `count` examples: [count, ...]."""
    parallel = parallel or DataParallel()
    devices = len(parallel.devices)
    size = math.ceil(min(batch, count) / devices) * devices

    def one(params, keys, examples):
        return function(params, keys, data.clean(examples), *data.condition(examples))

    compute = parallel.sample(one)
    params = parallel.place(params)
    keys = rng.per_example(rng.stream(rng.root(seed), "likelihood"), np.arange(count))
    parts = []
    for start in tqdm(range(0, count, size), unit="batch", dynamic_ncols=True):
        some = np.arange(start, start + size) % count
        rows = [source[int(i)] for i in some]
        examples = {name: np.stack([row[name] for row in rows]) for name in data.example}
        found = compute(params, keys[some], examples)
        part = {name: np.asarray(x)[: count - start] for name, x in found.items()}
        endings = part.pop(ENDING, None)
        _check_finite(part, start, endings)
        parts.append(part)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in whole.items()}


def _check_finite(part: Mapping[str, np.ndarray], start: int, endings: np.ndarray | None) -> None:
    """`NotFiniteError` with the first number of a batch that is none, the example being `start` and its place."""
    for name, x in part.items():
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            row, *term = bad[0].tolist()
            which = f"{name}[{term[0]}]" if term else name
            why = "" if endings is None else f": {ENDINGS[endings[row]]}"
            others = len(np.unique(bad[:, 0])) - 1
            more = f"; {others} more beside it" if others else ""
            raise NotFiniteError(f"{which} of example {start + row} is {x[tuple(bad[0])]}{why}{more}")
