"""Latents decoded to a picture: Stable Diffusion's first stage here, beside diffusers' with the same weights.

  python -m experiments.benchmarks.decoding
  python -m experiments.benchmarks.decoding --side 1024 --tile 512 --bfloat16

The network is KL-f8, of random weights, which our side writes to a temporary folder and the peer reads. Both decode
the same latents; the difference of their pictures is told, and one above rounding makes the ratio doubtful. Memory is
the most that a process holds while it decodes beyond what it held before, weights and program among that; of a GPU it
is not told. With --tile ours decodes on tiles of so many pixels, by the statistics of the whole picture, and the peer
by its own tiles, each by its own statistics: so the pictures differ.

Each side has a process of its own; repetitions take turns. Without torch and diffusers (the extra "parity") ours is
timed alone. Times on a CPU are worth something only where nothing else runs.
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from experiments.benchmarks.shared import (
    UNSTEADY,
    Side,
    absent,
    check_json,
    cores,
    count,
    processor,
    ratio,
    run,
    spread,
    table,
    unsteady,
    write_json,
)

# JAX and torch are imported by the sides alone: each has its own environment.

WIDTHS = {"kl-f8": (128, 256, 512, 512), "tiny": (8, 16, 16, 16)}
ROUNDING = {False: 1e-3, True: 0.1}  # of pixels, as a share of their deviation; the second in bfloat16
SCALE = 8  # pixels of a latent's side


def settle() -> None:
    """Forget the most memory that this process held until now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def held(what: str) -> float:
    """MiB that this process holds, "VmRSS", or held at most since `settle`, "VmHWM"."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(what))


def watched(call) -> tuple[float, float]:
    """(seconds, MiB at most beyond what was held before) of `call()`, which waits for its result."""
    settle()
    before, start = held("VmRSS"), time.perf_counter()
    call()
    return time.perf_counter() - start, held("VmHWM") - before


def measure(options, sides: list, progress) -> list[list[tuple[float, float]]]:
    """Per side its (seconds, MiB) of each repetition, in turns; the first of all is not counted."""
    results: list[list] = [[] for _ in sides]
    for repetition in range(options.repetitions + 1):
        progress(f"{repetition} of {options.repetitions}")
        for side, found in zip(sides, results, strict=True):
            found.append(side("decode"))
    return [found[1:] for found in results]


def report(abouts: list[dict], results: list[list[tuple[float, float]]]) -> str:
    """The table, for people."""
    rows = [["side", "seconds", "MiB beyond weights", "peer / ours, seconds", "MiB"]]
    for about, found in zip(abouts, results, strict=True):
        rows.append([about["name"], *(spread([each[i] for each in found]) for i in range(2))])
    if len(results) == 2:
        ours, theirs = ([[each[i] for each in found] for i in range(2)] for found in results)
        rows[1] += [ratio(theirs[i], ours[i]) for i in range(2)]
    return table(rows)


def doubts(options, abouts: list[dict], results: list, difference: float) -> list[str]:
    """What is wrong with the figures, if anything."""
    found = []
    if not options.tile and not difference < ROUNDING[options.bfloat16]:
        found.append(f"the two pictures differ by {difference:.1e} of their deviation: the ratio means nothing")
    for about, result in zip(abouts, results, strict=True):
        if unsteady([seconds for seconds, _ in result]):
            found.append(f"repetitions of {about['name']} differ by more than {UNSTEADY} times")
    return found


def main(arguments: list[str] | None = None):
    """The command `python -m experiments.benchmarks.decoding`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    check_json(parser, options.json)
    if options.side % SCALE:
        parser.error(f"--side {options.side}: give a multiple of {SCALE}")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer room on the same GPU
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        sides, difference = [Side("experiments.benchmarks.decoding_ours", options)], 0.0
        ours = sides[0]("about")
        if not absent():
            peer = Side("experiments.benchmarks.decoding_peer", options, ours)
            if peer.runs:
                sides.append(peer)
                difference = peer("difference", *sides[0]("said"))
        else:
            print(f"no {absent()}: ours alone; pip install 'diffusion_jax[parity]' to compare")
        with tqdm(total=options.repetitions + 1, unit="turn", dynamic_ncols=True) as bar:

            def progress(what):
                bar.set_postfix_str(what)
                bar.update()

            results = measure(options, sides, progress)
        abouts = [side("about") for side in sides]
    print(
        f"{options.network}, {options.side}x{options.side}, batch {options.batch}, "
        f"{'bfloat16' if options.bfloat16 else 'float32'}, on {ours['device']}; {processor()}, {cores()} cores\n"
        f"Python {platform.python_version()}; {'; '.join(about['versions'] for about in abouts)}\n"
        f"{ours['parameters']:,} parameters; pictures differ by {difference:.1e} of their deviation\n"
        f"median (least to most) of {options.repetitions}; above 1 ours is faster, or holds less\n"
    )
    print(report(abouts, results))
    for doubt in doubts(options, abouts, results, difference):
        print(f"DOUBTFUL: {doubt}")
    if options.json:
        del options.folder
        write_json(options.json, options, sides=abouts, difference=difference, decoding=results)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.decoding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--network", choices=tuple(WIDTHS), default="kl-f8", help="tiny is to see that all of it runs (%(default)s)")
    add("--side", type=count, default=512, metavar="PIXELS", help="of the pictures (%(default)s)")
    add("--batch", type=count, default=1, metavar="B", help="pictures at a time (%(default)s)")
    add("--tile", type=count, metavar="PIXELS", help="decode on tiles of this side")
    add("--bfloat16", action="store_true", help="compute in bfloat16")
    add("--repetitions", type=count, default=5, metavar="N", help="of what is timed (%(default)s)")
    add("--json", type=Path, metavar="PATH", help="also write every figure there")
    return parser


if __name__ == "__main__":
    run(main)
