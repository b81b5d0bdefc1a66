"""Samples from a model: drawn over all devices, filmed, and written to files."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.core.protocols import Parallel, Tree
from diffusion_jax.data import images
from diffusion_jax.data.views import View
from diffusion_jax.diffusion import samplers
from diffusion_jax.parallel.replicated import DataParallel
from diffusion_jax.parallel.sharded import Sharded
from diffusion_jax.training.experiment import MakeSampler, SampleRequest

ASKED = "asked.json"
FRAMES = 50  # pictures in a film
DIVERGED = 1e3  # data is of order 1: a chain beyond this has left it
COPIES = 2**30  # bytes of parameters that the devices of a CPU, which share its memory, may hold together


def spread(params: Tree, size: int, fsdp: bool = False, devices: Sequence[jax.Device] | None = None) -> Parallel:
    """What compiles samplers of `size` examples at a time: for as many devices as such a batch keeps busy.

    Of `devices` (this host's by default) those of a CPU are no more than hold 1 GiB of `params` together. With `fsdp`
    it is all devices, each with its share of the parameters.
    """
    if fsdp:
        return Sharded()
    devices = devices or jax.local_devices()
    if devices[0].platform == "cpu":
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        devices = devices[: max(1, COPIES // max(1, held))]
    each = math.ceil(size / len(devices))
    return DataParallel(devices[: math.ceil(size / each)])


def draw(
    make: MakeSampler,
    params: Tree,
    keys: jax.Array,
    cond: tuple,
    request: SampleRequest,
    batch: int,
    quiet: bool = False,
    parallel: Parallel | None = None,
) -> Tree:
    """NumPy samples, [num, ...]; arguments as of `batches`."""
    starts = range(0, len(keys), batch)
    drawn = [part for _, part in batches(make, params, keys, cond, request, batch, starts, quiet, parallel)]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *drawn)


def batches(
    make: MakeSampler,
    params: Tree,
    keys: jax.Array,
    cond: tuple,
    request: SampleRequest,
    batch: int,
    starts: Iterable[int],
    quiet: bool = False,
    parallel: Parallel | None = None,
) -> Iterator[tuple[int, Tree]]:
    """Samples batch by batch, over all devices, with a bar that moves with the chain's steps.

    Args:
      make: `SampleRequest -> sample_fn(params, keys, *cond)`.
      params: the network's.
      keys: one an example, [num].
      cond: () or (condition,), a dictionary of NumPy arrays [num, ...].
      request: the options; its batch is set here.
      batch: how many are drawn at a time, over all devices.
      starts: the first of each batch that is wanted: multiples of `batch`, below num. The others are there already.
      quiet: the bar moves after each batch only. A program that reports from within is compiled anew in every
        process: JAX keeps no program that calls the host in its compilation cache.
      parallel: what compiles for the devices; None for what `spread` chooses.

    Yields:
      (start, NumPy samples from there on, [batch, ...]; fewer at the end).

    Raises:
      NotFiniteError: a sample is not finite; the message names it, the first step that is not finite, and the likely
        cause.
    """
    num = len(keys)
    parallel = parallel or spread(params, min(batch, num))
    count = len(parallel.devices)
    size = math.ceil(min(batch, num) / count) * count
    starts = list(starts)
    missing = sum(min(batch, num - start) for start in starts)
    with tqdm(total=num, initial=num - missing, unit="sample", dynamic_ncols=True) as bar:
        done = num - missing

        def report(share):
            bar.n = min(num, int(done + float(share) * batch))
            bar.refresh()

        needed = request._replace(
            batch=size // parallel.programs, report=None if quiet else report, gather=parallel.gather
        )
        sample = parallel.sample(make(needed))
        params = parallel.place(params)
        for start in starts:
            # The last batch is as large as the others, so that nothing is compiled twice; the rest is cut off.
            wanted = min(batch, num - start)
            some = np.arange(start, start + size) % num
            drawn = _rows(sample(params, keys[some], *_rows(cond, some)), np.s_[:wanted])
            _check_finite(drawn, start, make, params, keys, cond, request, parallel)
            yield start, drawn
            done += wanted
            bar.n = done
            bar.refresh()


def filming(request: SampleRequest) -> SampleRequest:
    """What `film` asks of a sampler, which may refuse it."""
    return request._replace(run=partial(samplers.film, frames=FRAMES))


def film(
    make: MakeSampler,
    params: Tree,
    keys: jax.Array,
    cond: tuple,
    request: SampleRequest,
    parallel: Parallel | None = None,
) -> Tree:
    """The way of a few samples from noise to data, NumPy [F + 1, n, ...]; arguments as of `batches`."""
    num = len(keys)
    parallel = parallel or spread(params, num)
    count = len(parallel.devices)
    size = math.ceil(num / count) * count
    sample = make(filming(request)._replace(batch=size // parallel.programs, gather=parallel.gather))

    def pictures(*inputs):
        return jax.tree.map(lambda x: x.swapaxes(0, 1), sample(*inputs)[1])  # the batch first, as devices share it

    some = np.arange(size) % num
    frames = parallel.sample(pictures)(parallel.place(params), keys[some], *_rows(cond, some))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), _rows(frames, np.s_[:num]))


def _check_finite(drawn, start: int, make, params, keys, cond: tuple, request: SampleRequest, parallel):
    """`NotFiniteError` for the first sample that is not finite: its chain is walked again to see where it breaks."""
    broken = np.zeros(len(jax.tree.leaves(drawn)[0]), bool)
    for leaf in jax.tree.leaves(drawn):
        broken |= ~np.isfinite(leaf).reshape(len(leaf), -1).all(1)
    if not broken.any():
        return
    which = start + int(np.argmax(broken))
    count = len(parallel.devices)
    some = np.full(count, which)
    rest = f"{int(broken.sum())} of {len(broken)} of its batch are not; nothing is written of them"
    try:
        sample = make(
            request._replace(batch=count // parallel.programs, run=samplers.breaking, gather=parallel.gather)
        )
    except InputError:  # it has no chain to walk again
        raise NotFiniteError(f"sample {which} is not finite; {rest}") from None
    found = _rows(parallel.sample(sample)(params, keys[some], *_rows(cond, some)), 0)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(params))):
        seen = "the parameters are not finite themselves: take another checkpoint (--step)"
    elif found.stuck:
        seen = "the sampler found no step there whose error its tolerance allows: take one of fixed steps"
    elif found.before > DIVERGED:
        seen = f"values had grown to {found.before:.0e} by then: the chain diverges; more steps or less guidance help"
    else:
        seen = f"values were at most {found.before:.3g} until then: the network's output there is not finite"
    raise NotFiniteError(
        f"sample {which} is not finite from step {found.step} on, at t = {found.t:.4g} ({seen}); {rest}"
    )


def check_free(folder: Path, asked: dict) -> None:
    """`InputError` if `folder` has samples of another request than `asked` (`keep`)."""
    record = folder / ASKED
    if record.is_file():
        before = files.json_object(record)
        now = json.loads(json.dumps(asked))
        differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if differing:
            name = differing[0]
            raise InputError(
                f"{folder} holds other samples ({name} was {before.get(name)}, now {now.get(name)}); "
                "give another --out, or remove them"
            )
    elif (folder / "samples.npz").exists():
        raise InputError(f"{folder} holds samples without a record of how they were drawn; give another --out")


def keep(
    folder: Path, view: View, drawn: Tree, cond: tuple, frames: Tree | None = None, asked: dict | None = None
) -> list[Path]:
    """Write samples, their condition, their picture, and a film of `frames` where there are some.

    `asked` can be written as JSON; it is saved beside the samples, as the record of how they were drawn.

    Returns:
      The files, the picture first.
    """
    written = view.files(drawn)
    if asked is not None:
        files.write_json(folder / ASKED, asked)
    if cond:
        written |= {"condition.npz": lambda file: np.savez_compressed(file, **cond[0])}
    for name, save in written.items():
        files.write(folder / name, save)
    images.save_png(folder / "grid.png", view.picture(_rows(drawn, np.s_[: view.shown])))
    names = ["grid.png", *written]
    if frames is not None:
        moments = range(len(jax.tree.leaves(frames)[0]))
        images.save_film(folder / "film.gif", [view.picture(_rows(frames, f)) for f in moments])
        images.save_png(folder / "strip.png", view.strip(frames))
        names += ["film.gif", "strip.png"]
    return [folder / name for name in names]


def keep_film(folder: Path, view: View, drawn: Tree) -> Path:
    """Write the film that samples are (`View.film`), of the first few; returns the file."""
    path = folder / "film.gif"
    images.save_film(path, view.film(_rows(drawn, np.s_[: view.filmed])))  # type: ignore[misc]  # only where there is one
    return path


def _rows(tree, some):
    return jax.tree.map(lambda x: x[some], tree)
