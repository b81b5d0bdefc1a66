"""Hostile files, each read in a process of its own: what comes of them, in how much time and memory.

  python -m experiments.strangers.hostile --number 300

Half of the files are crafted, each for one weakness that readers have (`weights`, `data`, `texts`); the others are
good files with bytes changed, cut, repeated or moved by a generator with `--seed`. Prints a table, a row for each
kind of file:

  tried      files of this kind.
  read       they were read to the end, and what was read is theirs.
  refused    one line to the person, an `InputError`.
  raised     another exception came out: a fault.
  slow       not done after `--seconds` of wall clock, then killed: a fault.
  large      the process held more than `--mebibytes` at one moment (ru_maxrss, with Python, JAX and all): a fault.
  died       the process was killed by a signal: a fault.
  executed   something that a file names was called (it would leave a mark): a fault.
  seconds, MiB   the most that one file took.

Below the table each fault has a line. The exit status is 1 if there is one.
"""

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax import pretrained
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import numpy_files, sources
from diffusion_jax.evaluation import image_store, protocol, references
from diffusion_jax.evaluation.extractors import Extractor
from diffusion_jax.pretrained import encoders
from diffusion_jax.pretrained.formats import files
from experiments.strangers import data, texts, weights
from experiments.strangers.cases import MARK, Case, zipped

FAULTS = ("raised", "slow", "large", "died", "executed")
PIXELS = Extractor(lambda images: {"features": images[:, 0, 0].astype("float32")}, "pixels")
OUTCOMES = ("read", "refused", *FAULTS)


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
      read: reads all of what is in the folder.
      good: path -> bytes, files that are read.
      mutable: the paths of those that are mutated.
      crafted: the cases made by hand.
    """

    read: Callable[[Path], None]
    good: Mapping[str, bytes]
    mutable: list[str]
    crafted: list[Case]


class Outcome(NamedTuple):
    """What came of a case: one of `OUTCOMES`, what was said, and the cost."""

    what: str
    said: str
    seconds: float
    mebibytes: float


# ---- How each kind is read.


def all_arrays(path) -> None:
    """Every array of a file of weights."""
    for array in files.weights(path).values():
        np.asarray(array)


def encoder(folder: Path) -> None:
    """A published encoder, in the dtype of its file."""
    encoders.opened(folder).read(None)


def images(path) -> None:
    """What an evaluation reads of `--images`."""
    found = image_store.of_path(path)
    found.sha256()
    found.some(10)


def moments_of(path) -> None:
    """What an evaluation reads of `--reference`."""
    references.of_path(path).check(PIXELS)


def pictures(folder: Path) -> None:
    """A folder's pictures, all of them."""
    source = sources.folder(folder, 8, channels=3)
    for i in range(len(source)):
        source[i]


def latents(folder: Path) -> None:
    """A folder of latents, all of them."""
    source = sources.latents(folder)
    for i in range(len(source)):
        source[i]


def compared(path) -> None:
    """A report beside itself."""
    report = protocol.read(path)
    protocol.compare(report, report)
    protocol.differences(report, report)


def kinds() -> dict[str, Kind]:
    """All kinds of files that are read."""
    with ProcessPoolExecutor(1, get_context("fork")) as other:  # a process whose JAX has started should not fork
        folder = other.submit(weights.model).result()
        t5, clip = (other.submit(weights.encoder, config).result() for config in (weights.T5, weights.CLIP))
    moments = {f"{name}.npy": data.floats(*shape) for name, shape in (("mu", (3,)), ("sigma", (3, 3)))}
    return {
        "safetensors": Kind(
            lambda root: all_arrays(root / weights.SAFETENSORS),
            {weights.SAFETENSORS: weights.good_safetensors()},
            [weights.SAFETENSORS],
            weights.crafted_safetensors(),
        ),
        "torch.save": Kind(
            lambda root: all_arrays(root / weights.TORCH),
            {weights.TORCH: weights.good_torch()},
            [weights.TORCH],
            weights.crafted_torch(),
        ),
        "index": Kind(
            lambda root: all_arrays(root / weights.INDEX),
            {weights.INDEX: weights.good_index(), weights.SAFETENSORS: weights.good_safetensors()},
            [weights.INDEX],
            weights.crafted_index(),
        ),
        "published folder": Kind(
            lambda root: pretrained.load(root).sampling(),
            folder,
            ["config.json", weights.WEIGHTS],
            weights.crafted_folder(folder),
        ),
        "T5": Kind(encoder, t5, ["config.json", weights.ENCODED], weights.crafted_encoder(t5, weights.T5)),
        "CLIP": Kind(encoder, clip, ["config.json", weights.ENCODED], weights.crafted_encoder(clip, weights.CLIP)),
        "--condition": Kind(
            lambda root: numpy_files.arrays(root / "a.npz"),
            {"a.npz": zipped({"a.npy": data.floats(2, 3)})},
            ["a.npz"],
            data.crafted_arrays("a.npz", "a.npy"),
        ),
        "--images": Kind(
            lambda root: images(root / "a.npz"),
            {"a.npz": zipped({"images.npy": data.npy(data.described("(4, 8, 8, 1)"), bytes(range(256)))})},
            ["a.npz"],
            data.crafted_arrays("a.npz", "images.npy"),
        ),
        "--reference": Kind(
            lambda root: moments_of(root / "a.npz"),
            {"a.npz": zipped(moments)},
            ["a.npz"],
            data.crafted_moments("a.npz"),
        ),
        "pictures": Kind(
            pictures, {"b.png": data.png(8, 8), "c.png": data.png(9, 9)}, ["b.png"], data.crafted_pictures()
        ),
        "latents": Kind(latents, data.good_latents(), [data.LATENTS, data.RECORD], data.crafted_latents()),
        "tokenizer.json": Kind(
            texts.read, texts.good_described(), [texts.DESCRIBED, texts.CONFIG], texts.crafted_described()
        ),
        "vocab.json": Kind(
            texts.read, texts.good_vocabulary(), [texts.VOCABULARY, texts.CONFIG], texts.crafted_vocabulary()
        ),
        "spiece.model": Kind(texts.read, texts.good_spiece(), [texts.SPIECE], texts.crafted_spiece()),
        "LoRA": Kind(texts.read_lora, texts.good_lora(), [texts.LORA], texts.crafted_lora()),
        "--compare": Kind(
            lambda root: compared(root / "a.json"), {"a.json": data.good_report()}, ["a.json"], data.crafted_report()
        ),
    }


# ---- Mutations, and what comes of a case.


def mutated(content: bytes, generator: np.random.Generator) -> tuple[str, bytes]:
    """(how, the bytes with one to four changes)."""
    changed, hows = bytearray(content), []
    for _ in range(min(4, generator.geometric(0.6))):
        at, length = (int(n) for n in generator.integers(0, max(1, len(changed)), 2))
        how = ("byte", "bit", "cut", "repeated", "moved", "longest", "digits")[generator.integers(7)]
        hows.append(f"{how} at {at}")
        if how == "cut":
            del changed[at : at + length % 64 if generator.random() < 0.7 else None]
        elif how == "repeated":
            changed[at:at] = changed[at : at + length % 256] * int(generator.integers(1, 20))
        elif how == "moved":
            piece = changed[at : at + length % 64]
            del changed[at : at + length % 64]
            changed[length % (len(changed) + 1) :][:0] = piece
        elif how == "longest":
            changed[at : at + 4] = b"\xff" * 4
        elif how == "digits":
            changed[at : at + 1] = b"9" * int(generator.choice([1, 10, 20, 400, 5000]))
        elif changed:
            changed[at] = generator.integers(256) if how == "byte" else changed[at] ^ 1 << int(generator.integers(8))
    return ", ".join(hows), bytes(changed)


def put(root: Path, content: Mapping[str, bytes | Callable]) -> None:
    """Write a case's files."""
    for name, made in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = made(path) if callable(made) else made
        if content is not None:
            path.write_bytes(content)


def outcome(read: Callable[[Path], None], case: Case, seconds: float, mebibytes: float) -> Outcome:
    """Read a case in a process of its own."""
    root = Path(tempfile.mkdtemp(prefix="hostile_"))
    said = root / "said"
    try:
        put(root / "files", case.content)
        start, child = time.monotonic(), os.fork()
        if not child:
            _child(read, root, said)
        while time.monotonic() < start + seconds:
            found, status, usage = os.wait4(child, os.WNOHANG)
            if found:
                break
            time.sleep(0.002)
        else:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
        took, held = time.monotonic() - start, usage.ru_maxrss / 1024
        what, text = said.read_text().split(" ", 1) if said.exists() else ("died", f"status {status}")
        if took >= seconds:
            what = "slow"
        elif held > mebibytes:
            what, text = "large", f"({what}) {text}"
        if (root / MARK).exists():
            what = "executed"
        return Outcome(what, text, took, held)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _child(read, root: Path, said: Path) -> None:
    """Never returns."""
    try:
        os.chdir(root)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        # A crash of its own is better than one of the machine's memory.
        resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
        try:
            read(root / "files")
        except InputError as error:
            text = str(error)
            result = f"refused {text}" if "\n" not in text else f"raised several lines: {text}"
        except BaseException as error:
            result = f"raised {type(error).__name__}: {str(error)[:200]}"
        else:
            result = "read "
        said.write_bytes(result.encode(errors="replace"))
    finally:
        os._exit(0)


def main() -> int:
    """Try them all, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=300, help="files in all; crafted ones first (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--mebibytes", type=float, default=1024.0)
    parser.add_argument("--kind", help="only this one, as --kind=pictures")
    parser.add_argument("--show", action="store_true", help="also what was said of each file")
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    tried = {name: kind for name, kind in kinds().items() if options.kind in (None, name)}
    cases = [(name, case) for name, kind in tried.items() for case in (Case("good", kind.good), *kind.crafted)]
    names = list(tried)
    while len(cases) < options.number:
        name = names[len(cases) % len(names)]
        kind = tried[name]
        path = kind.mutable[generator.integers(len(kind.mutable))]
        how, content = mutated(kind.good[path], generator)
        cases.append((name, Case(f"mutated: {how}", dict(kind.good) | {path: content})))
    counts, slowest, largest, faults = {name: Counter() for name in names}, Counter(), Counter(), []
    for name, case in cases:
        found = outcome(tried[name].read, case, options.seconds, options.mebibytes)
        if case.name == "good" and found.what != "read":
            found = found._replace(what="raised", said=f"a good file: {found.what} {found.said}")
        counts[name][found.what] += 1
        slowest[name] = max(slowest[name], found.seconds)
        largest[name] = max(largest[name], found.mebibytes)
        cost = f"({found.seconds:.1f} s, {found.mebibytes:.0f} MiB)"
        told = f"{name}: {case.name}: {found.what} {found.said[:200]} {cost}"
        if found.what in FAULTS:
            faults.append(told)
        if options.show:
            print(told)
    print(f"{'':<18}{'tried':>6}" + "".join(f"{what:>9}" for what in OUTCOMES) + f"{'seconds':>9}{'MiB':>7}")
    for name in names:
        row = counts[name]
        cells = "".join(f"{row[what]:>9}" for what in OUTCOMES)
        print(f"{name:<18}{row.total():>6}{cells}{slowest[name]:>9.1f}{largest[name]:>7.0f}")
    print("\n".join(faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
