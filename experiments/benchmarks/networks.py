"""Forward time of every network beside its twin in diffusers.

  python -m experiments.benchmarks.networks
  python -m experiments.benchmarks.networks --networks dit adm --repetitions 10
  python -m experiments.benchmarks.networks --size published --dtype bfloat16 --forwards 20     (a GPU)

  ddpm         DDPM's U-Net on 32x32 images
  adm          ADM's, told the class, on 64x64 images: modulated residual blocks, attention of several heads
  text         Stable Diffusion's, on latents and 77 tokens of 768 features: cross-attention at three levels
  dit          DiT-XL/2, told the class, on 32x32 latents
  controlnet   the text U-Net and the ControlNet that steers it, in one call

--size half, the default, has half the channels, and images that are small enough for a CPU; --size published has the
published networks, --size tiny is to see that all of it runs. Both sides have as many parameters (the table says
whether). Weights are random, inputs stay where they are computed on; a time is that of one forward pass, waited for.

The peer is set up as well as it can be without changing it: channels-last memory, inference mode, as many threads as
cores, bfloat16 by autocast; --compile adds torch.compile. The embeddings that diffusers' DiT repeats in every block
are one module here, which it still evaluates as often.

Networks come one after another, each side of each in a process of its own that ends before the next network; within
a network repetitions take turns. Devices are chosen by JAX_PLATFORMS and CUDA_VISIBLE_DEVICES. Without torch and
diffusers (the extra "parity") ours are timed alone. On a CPU the machine must be idle: torch's threads wait for one
another, and other work slows it far more than us.
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

# JAX and torch are imported by the sides alone: a process starts with its parent's peak memory as its own.

DDPM = {"multipliers": (1, 2, 2, 2), "blocks": 2, "attention_levels": (1,), "out_channels": 3}
ADM = {"multipliers": (1, 2, 3, 4), "attention_levels": (1, 2, 3), "out_channels": 6}
TEXT = {"multipliers": (1, 2, 4, 4), "blocks": 2, "attention_levels": (0, 1, 2), "out_channels": 4}
DIT = {"patch": 2, "layers": 28, "out_channels": 8}
# By size: "image", the shape of one; "batch"; "fields" of the network; "head", the width of ADM's heads.
NETWORKS = {
    "ddpm": {
        "published": {"image": (32, 32, 3), "batch": 8, "fields": DDPM | {"channels": 128}},
        "half": {"image": (32, 32, 3), "batch": 4, "fields": DDPM | {"channels": 64}},
        "tiny": {"image": (8, 8, 3), "batch": 2, "fields": DDPM | {"channels": 32}},
    },
    "adm": {
        "published": {"image": (64, 64, 3), "batch": 8, "head": 64, "fields": ADM | {"channels": 192, "blocks": 3}},
        "half": {"image": (64, 64, 3), "batch": 1, "head": 32, "fields": ADM | {"channels": 96, "blocks": 2}},
        "tiny": {"image": (8, 8, 3), "batch": 2, "head": 32, "fields": ADM | {"channels": 32, "blocks": 1}},
    },
    "text": {
        "published": {"image": (64, 64, 4), "batch": 8, "fields": TEXT | {"channels": 320}},
        "half": {"image": (32, 32, 4), "batch": 1, "fields": TEXT | {"channels": 160}},
        "tiny": {"image": (8, 8, 4), "batch": 2, "fields": TEXT | {"channels": 32}},
    },
    "dit": {
        "published": {
            "image": (32, 32, 4),
            "batch": 8,
            "fields": DIT | {"features": 1152, "heads": 16},
        },
        "half": {"image": (32, 32, 4), "batch": 1, "fields": DIT | {"features": 576, "heads": 8}},
        "tiny": {"image": (8, 8, 4), "batch": 2, "fields": DIT | {"features": 32, "layers": 2, "heads": 2}},
    },
}
NETWORKS["controlnet"] = NETWORKS["text"]
# What a network is told beside the time, in the order of the twin's arguments.
TOLD = {"ddpm": (), "adm": ("label",), "text": ("tokens",), "dit": ("label",), "controlnet": ("tokens", "hint")}
SIZES = ("half", "published", "tiny")
CLASSES = 1000
TOKENS = (77, 768)
HINT = 8  # a hint is so many times larger than the latents


def measure(options, sides: list, progress) -> list[dict]:
    """Per side {"about", "first" seconds, "seconds" [repetitions] of one forward pass}, in turns.

    `sides` are `Side`s, or functions that answer like them; `progress` is called with a word on what comes next.
    """
    results = []
    for i, side in enumerate(sides):
        progress(f"{('ours', 'peer')[i]}, first call")
        results.append({"about": side("about"), "first": side("prepare"), "seconds": []})
    for repetition in range(options.repetitions + 1):
        progress(f"{repetition} of {options.repetitions}" if repetition else "warm-up")
        for side, result in zip(sides, results, strict=True):
            seconds = side("seconds")
            if repetition:
                result["seconds"].append(seconds)
    return results


def report(results: dict[str, list[dict]]) -> str:
    """The table, for people; `results` are `measure`'s, by network."""
    titles = ["network", "batch", "parameters", "ours, s", "peer, s", "ours / peer", "first call: ours, s", "peer, s"]
    rows = [titles]
    for name, sides in results.items():
        ours = sides[0]["about"]
        times = [side["seconds"] for side in sides]
        rows.append([name, str(ours["batch"]), f"{ours['parameters']:,}", spread(times[0])])
        if len(sides) == 2:
            rows[-1] += [spread(times[1]), ratio(times[1], times[0])]
        else:
            rows[-1] += ["none", ""]
        rows[-1] += [f"{side['first']:.1f}" for side in sides]
    return table(rows)


def doubts(results: dict[str, list[dict]]) -> list[str]:
    """What is wrong with the figures, if anything."""
    found = []
    for name, sides in results.items():
        if len({side["about"]["parameters"] for side in sides}) > 1:
            found.append(f"{name}: not as many parameters on either side: the ratio means nothing")
        for side in sides:
            if unsteady(side["seconds"]):
                found.append(f"{name}: repetitions of {side['about']['name']} differ by more than {UNSTEADY} times")
    return found


def main(arguments: list[str] | None = None):
    """The command `python -m experiments.benchmarks.networks`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    check_json(parser, options.json)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer room on the same GPU
    started = time.perf_counter()
    missing = absent()
    if missing:
        print(f"{missing} not installed: ours alone; pip install 'diffusion_jax[parity]' to compare")
    results = {}
    turns = options.repetitions + 2 + (not missing)
    with tqdm(total=turns * len(options.networks), unit="turn", dynamic_ncols=True) as bar:
        for name in options.networks:

            def progress(what, name=name):
                bar.set_postfix_str(f"{name}, {what}")
                bar.update()

            options.network = name
            sides = [Side("experiments.benchmarks.networks_ours", options)]
            if not missing:
                peer = Side("experiments.benchmarks.networks_peer", options, sides[0]("about"))
                sides += [peer] if peer.runs else []
                if not peer.runs:
                    bar.write(f"this torch sees no {sides[0]('about')['platform']}: ours alone")
            results[name] = measure(options, sides, progress)
            del sides  # a process ends when nobody can ask it any more
    abouts = [side["about"] for side in next(iter(results.values()))]
    print(
        f"size {options.size}, {options.dtype}, on {abouts[0]['device']}; {processor()}, {cores()} cores\n"
        f"Python {platform.python_version()}; {'; '.join(about['versions'] for about in abouts)}\n"
        f"a forward pass, median (least to most) of {options.repetitions}; ours / peer is of speeds, above 1 where "
        "ours is faster,\nits range that of neighbouring repetitions\n"
    )
    print(report(results))
    for doubt in doubts(results):
        print(f"DOUBTFUL: {doubt}")
    print(f"{time.perf_counter() - started:.0f} s in all")
    if options.json:
        write_json(options.json, options, networks=results)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.networks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = {"nargs": "+", "choices": tuple(NETWORKS), "default": tuple(NETWORKS), "metavar": "NAME"}
    add("--networks", **names, help=f"of {', '.join(NETWORKS)}; all by default")
    add("--size", choices=SIZES, default=SIZES[0], help="of the networks and images (%(default)s)")
    add("--batch", type=count, metavar="B", help="images at a time (1 to 8 by network and size)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of convolutions and products")
    add("--repetitions", type=count, default=5, metavar="N", help="of everything that is timed (%(default)s)")
    add("--forwards", type=count, default=1, metavar="N", help="forward passes a repetition (%(default)s)")
    add("--compile", action="store_true", help="torch.compile for the peer")
    add("--json", type=Path, metavar="PATH", help="also write every figure there")
    return parser


if __name__ == "__main__":
    run(main)
