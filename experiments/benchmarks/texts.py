"""Pictures of texts by a whole pipeline at full size: memory and seconds here, beside diffusers with the same folder.

  python -m experiments.benchmarks.texts
  python -m experiments.benchmarks.texts --model xl --dtype bfloat16 --steps 2

The folder is made for it, of random weights in bfloat16 and a tokenizer of single letters, and deleted afterwards.
Told are the most memory that a process takes while it reads the networks in the file's own dtype, as a share of the
bytes of their files; the seconds of the first picture, with all that is compiled; and those of a picture after it.
Pictures are 512x512, one at a time, guided; decoding is among their seconds. The peer encodes its text anew for each
picture; ours once, before the first, which is not timed. --memory leaves the pictures out.

Each side has a process of its own, and they run one after the other: both would not fit the memory. Times on a CPU
are worth something only where nothing else runs.
"""

import argparse
import platform
import tempfile
from pathlib import Path

from experiments.benchmarks.shared import (
    Side,
    absent,
    check_json,
    cores,
    count,
    processor,
    run,
    spread,
    table,
    write_json,
)

MODELS = ("sd15", "xl", "tiny")
PROMPT = "a photo of a cat"


def measure(module: str, options, ours: dict | None = None) -> dict:
    """All figures of one side; its process ends with it."""
    side = Side(module, options, ours)
    found = {"about": side("about"), "share": side("load")}
    if options.memory:
        return found
    return found | {"first": side("picture"), "after": [side("picture") for _ in range(options.repetitions)]}


def main(arguments: list[str] | None = None):
    """The command `python -m experiments.benchmarks.texts`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    check_json(parser, options.json)
    with tempfile.TemporaryDirectory(dir=options.at) as folder:
        options.folder = folder
        size = Side("experiments.benchmarks.texts_folder", options)("write")
        found = [measure("experiments.benchmarks.texts_ours", options)]
        if missing := absent():
            print(f"no {missing}: ours alone; pip install 'diffusion_jax[parity]' to compare")
        else:
            found.append(measure("experiments.benchmarks.texts_peer", options, found[0]["about"]))
    print(
        f"{options.model}, {options.dtype}, {options.steps} steps of 512x512; {processor()}, {cores()} cores\n"
        f"Python {platform.python_version()}; {'; '.join(side['about']['versions'] for side in found)}\n"
        f"{size / 2**30:.2f} GiB of weights in bfloat16; median (least to most) of {options.repetitions}\n"
    )
    rows = [["side", "memory / files", *([] if options.memory else ["first picture, s", "a picture, s"])]]
    for side in found:
        times = [] if options.memory else [f"{side['first']:.3g}", spread(side["after"])]
        rows.append([side["about"]["name"], f"{side['share']:.2f}", *times])
    print(table(rows))
    if options.json:
        del options.folder
        write_json(options.json, options, bytes=size, sides=found)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.texts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", choices=MODELS, default="sd15", help="tiny is to see that all of it runs (%(default)s)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of what is computed (%(default)s)")
    add("--steps", type=count, default=2, metavar="N", help="of a picture (%(default)s)")
    add("--repetitions", type=count, default=1, metavar="N", help="of a picture after the first (%(default)s)")
    add("--memory", action="store_true", help="measure the memory of reading alone")
    add("--at", type=Path, metavar="DIR", help="where there is room for the folder (the system's for such files)")
    add("--json", type=Path, metavar="PATH", help="also write every figure there")
    return parser


if __name__ == "__main__":
    run(main)
