"""Tokens drawn one after another: a Gated PixelCNN here, beside the same network in a loop of PyTorch.

  python -m experiments.benchmarks.positions
  python -m experiments.benchmarks.positions --size codes --batch 16 --repetitions 5

  digits   that of configs/pixelcnn_pixels.py, without a label: 8x8 pixels of 17 levels, 5 layers of 32 features
  codes    16x16 codes of 512, 8 layers of 64 features
  tiny     to see that all of it runs

Both sides have the same weights, random ones, and say the same logits of the same tokens: that is measured first,
and a difference above rounding makes the ratio doubtful. Each calls the whole network for each position, and draws a
token there. Ours is `samplers.positions` in `samplers.solve`, one compiled program. The peer has no more to do than
it must: windows cut to what is not masked, channels-last memory, inference mode, a thread for each core.

Each side has a process of its own; repetitions take turns. Devices are chosen by JAX_PLATFORMS and
CUDA_VISIBLE_DEVICES. Without torch (the extra "parity") ours is timed alone. Times on a CPU are worth something only
where nothing else runs.
"""

import argparse
import os
import platform
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

SIZES = {
    "digits": {
        "shape": (8, 8),
        "vocab": 17,
        "fields": {"features": 32, "layers": 5, "first_side": 5, "token_features": 8, "head_features": 64},
    },
    "codes": {
        "shape": (16, 16),
        "vocab": 512,
        "fields": {"features": 64, "layers": 8, "first_side": 5, "token_features": 32, "head_features": 128},
    },
    "tiny": {
        "shape": (3, 4),
        "vocab": 5,
        "fields": {"features": 8, "layers": 2, "first_side": 3, "token_features": 4, "head_features": 8},
    },
}
ROUNDING = 1e-4  # of logits, as a share of the largest


def measure(options, sides: list, progress) -> list[dict]:
    """Per side {"first" seconds, "seconds" [repetitions] of a whole chain}, in turns.

    `sides` are `Side`s, or functions that answer like them; `progress` is called with a word on what comes next.
    """
    results = []
    for i, side in enumerate(sides):
        progress(f"{('ours', 'peer')[i]}, first call")
        results.append({"first": side("seconds"), "seconds": []})
    for repetition in range(options.repetitions):
        progress(f"{repetition + 1} of {options.repetitions}")
        for side, result in zip(sides, results, strict=True):
            result["seconds"].append(side("seconds"))
    return results


def report(options, abouts: list[dict], results: list[dict]) -> str:
    """The table, for people: positions a second, of the whole batch at once."""
    height, width = SIZES[options.size]["shape"]
    rates = [[height * width / seconds for seconds in result["seconds"]] for result in results]
    rows = [["side", "positions/s", "first call, s", "ours / peer"]]
    for about, result, rate in zip(abouts, results, rates, strict=True):
        rows.append([about["name"], spread(rate), f"{result['first']:.1f}"])
    if len(rates) == 2:
        rows[1].append(ratio(*rates))
    return table(rows)


def doubts(abouts: list[dict], results: list[dict], difference: float) -> list[str]:
    """What is wrong with the figures, if anything; `difference` is that of logits, as a share of the largest."""
    found = []
    if not difference < ROUNDING:
        found.append(f"the two networks differ by {difference:.1e} of their logits: the ratio means nothing")
    for about, result in zip(abouts, results, strict=True):
        if unsteady(result["seconds"]):
            found.append(f"repetitions of {about['name']} differ by more than {UNSTEADY} times")
    return found


def main(arguments: list[str] | None = None):
    """The command `python -m experiments.benchmarks.positions`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    check_json(parser, options.json)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer room on the same GPU
    started = time.perf_counter()
    sides = [Side("experiments.benchmarks.positions_ours", options)]
    ours, difference = sides[0]("about"), 0.0
    if "torch" not in absent():
        peer = Side("experiments.benchmarks.positions_peer", options, ours)
        if peer.runs:
            sides.append(peer)
            difference = peer("difference", *sides[0]("said"))
    if len(sides) == 1:
        print(f"no torch that sees a {ours['platform']}: ours alone; pip install 'diffusion_jax[parity]' to compare")
    with tqdm(total=options.repetitions + len(sides), unit="turn", dynamic_ncols=True) as bar:

        def progress(what):
            bar.set_postfix_str(what)
            bar.update()

        results = measure(options, sides, progress)
    abouts = [side("about") for side in sides]
    print(
        f"{options.size}, batch {options.batch}, on {ours['device']}; {processor()}, {cores()} cores\n"
        f"Python {platform.python_version()}; {'; '.join(about['versions'] for about in abouts)}\n"
        f"{ours['parameters']:,} parameters; logits differ by {difference:.1e} of the largest\n"
        f"positions a second of a batch, median (least to most) of {options.repetitions}; above 1 ours is faster\n"
    )
    print(report(options, abouts, results))
    for doubt in doubts(abouts, results, difference):
        print(f"DOUBTFUL: {doubt}")
    print(f"{time.perf_counter() - started:.0f} s in all")
    if options.json:
        write_json(options.json, options, sides=abouts, difference=difference, positions=results)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.positions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--size", choices=tuple(SIZES), default="digits", help="of the network and the pictures (%(default)s)")
    add("--batch", type=count, default=64, metavar="B", help="pictures at a time (%(default)s)")
    add("--repetitions", type=count, default=5, metavar="N", help="of everything that is timed (%(default)s)")
    add("--json", type=Path, metavar="PATH", help="also write every figure there")
    return parser


if __name__ == "__main__":
    run(main)
