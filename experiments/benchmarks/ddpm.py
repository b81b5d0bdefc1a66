"""Speed of DDPM: training and sampling beside diffusers on PyTorch, and how much of the machine both use.

  python -m experiments.benchmarks.ddpm
  python -m experiments.benchmarks.ddpm --peers eager,compiled --tasks training,ddim --repeats 10
  python -m experiments.benchmarks.ddpm --size church --batch 1 --sampling-steps 1 --repeats 1

Sizes are the network of configs/cifar.py, of configs/lsun_church.py at 256x256, of configs/digits.py, and DiT-B/2 on
the 32x32x4 latents of configs/imagenet256_dit.py. Tasks are training, the ancestral chain of 1000 steps, DDIM of 50,
and Heun's method of 18, which are 35 evaluations of the network on either side. Of a chain the first --sampling-steps
steps are timed and scaled to the whole by the number of evaluations.

The same on both sides: network (diffusers' UNet2DModel or DiTTransformer2DModel, as many parameters or the benchmark
stops), batch, type and work. Training is uniform times, noise, mean squared error of the noise, dropout, gradients
clipped by their global norm, Adam, moving average. Chains clip x0, but Heun's and those of latents. DiT says the
noise alone, for the usual loop learns no variance; it is told the class, in training not of a tenth, is not
guided, and recomputes no block. diffusers' DiT embeds time and class in every block; here its blocks share the
parameters, as ours do, but it still computes them as often.

Ours is what `diffusion_jax.train` and `diffusion_jax.sample` compile. The peer is set up as well as it can be
without changing it: channels-last memory, fused Adam, foreach clipping and averaging, scaled-dot-product
attention, as many threads as cores, cuDNN's autotuner, bfloat16 by autocast. Both may use TF32 on a GPU, as JAX
does by default; the report says what was set. --peers compiled is the peer under torch.compile.

Utilisation is matrix products and convolutions a second (`flops`, counted once, in ours: the work is the same), over
what a product of large matrices of the same type reaches on the same machine, the fastest of all sides.

Each side has a process of its own, so that neither's memory nor idle threads are the other's. Repetitions take
turns on one device. The first call, which compiles, is shown apart; two rounds of warm-up are not. Devices are
chosen by JAX_PLATFORMS and CUDA_VISIBLE_DEVICES. The peer needs torch and diffusers (the extra "parity"), compiled
on a CPU also a C++ compiler; a peer that is missing or fails is named, and the others are measured without it.

On one H200 or A100, some minutes each, and the whole chains with --whole instead of --sampling-steps:
  for size in cifar church dit; do
    python -m experiments.benchmarks.ddpm --size $size --batch 128 --dtype bfloat16 --peers compiled \\
        --train-steps 20 --sampling-steps 18 --json $size.json
  done
Where 128 images of 256x256 are too many for the memory, a peer fails and is named, or ours, and all ends: give
church --batch 64, the paper's. The first call of --peers compiled takes minutes.

On a CPU the machine must be idle: torch's threads wait for one another, and other work slows it far more than us.
"""

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from experiments.benchmarks import shared
from experiments.benchmarks.shared import SideError, ratio, spread

# JAX and torch are imported by the sides alone: a process starts with its parent's peak memory as its own.

TABLE = 1000
PEERS = ("eager", "compiled")
WARM_UPS = 2  # torch.compile still works at a task's second call, and again after the other tasks
PACKAGE = "experiments.benchmarks"


class Chain(NamedTuple):
    """A whole chain: its steps, and evaluations of the network in each but the last, which has one."""

    steps: int
    each: int = 1


CHAINS = {"ancestral": Chain(TABLE), "ddim": Chain(50), "heun": Chain(18, 2)}
TASKS = ("training", *CHAINS)
BATCHES = {"cifar": 8, "church": 1, "digits": 64, "dit": 4}


def evaluations(task: str, steps: int | None = None) -> int:
    """Of the network, in the first `steps` steps of a chain, or in the whole."""
    whole, each = CHAINS[task]
    steps = min(whole if steps is None else steps, whole)
    return each * steps - (each - 1) * (steps == whole)


def measure(options, sides: list) -> tuple[list[dict], dict[int, str]]:
    """What every side says and takes, repetitions taking turns; and which have failed, {number: why}.

    Args:
      options: as the command line names them.
      sides: `shared.Side`s, or functions that answer like them, the first ours.

    Returns:
      Per side {"about": dict, task: {"first": seconds, "compiling": seconds or absent, "seconds": [repeats]},
      "memory": {"host": MiB, "device": MiB or absent}, "rate": operations a second}, and for ours "flops". A side
      that failed has no more than it had until then.

    Raises:
      SideError: ours has failed.
    """
    results, failed = [{"about": side("about")} for side in sides], {}
    numbered = (f"{n} of {options.repeats}" for n in range(1, options.repeats + 1))
    rounds = ["first call", *["warm-up"] * WARM_UPS, *numbered]
    turns = [(what, task, i) for what in rounds for task in options.tasks for i in range(len(sides))]
    with tqdm(turns, unit="run", dynamic_ncols=True) as bar:
        for what, task, i in bar:
            if i in failed:
                continue
            bar.set_postfix_str(f"{results[i]['about']['name']}, {task}, {what}")
            try:
                if what == "first call":
                    results[i][task] = sides[i]("first", task) | {"seconds": []}
                else:
                    seconds = sides[i]("seconds", task)
                    results[i][task]["seconds"] += [] if what == "warm-up" else [seconds]
            except SideError as error:
                if i == 0:
                    raise
                failed[i] = str(error)
    for i, side in enumerate(sides):
        if i not in failed:
            results[i]["memory"] = side("memory")
            results[i]["rate"] = side("rate")
    results[0]["flops"] = sides[0]("flops")
    return results, failed


def images_per_second(options, task: str, seconds: list[float]) -> list[float]:
    """Of each repetition; a part of a chain is scaled to the whole."""
    if task == "training":
        return [options.train_steps * options.batch / s for s in seconds]
    part = evaluations(task, options.sampling_steps) / evaluations(task)
    return [options.batch * part / s for s in seconds]


def utilisation(options, task: str, seconds: list[float], flops: dict, rate: float) -> float:
    """The share of `rate` that a median repetition reaches."""
    if task == "training":
        work = options.train_steps * flops["training"]
    else:
        work = evaluations(task, options.sampling_steps) * flops["evaluation"]
    return work / statistics.median(seconds) / rate


def report(options, results: list[dict], remarks: list[str]) -> str:
    """The table, for people, of sides that have not failed; `remarks` are lines on those that have."""
    abouts = [result["about"] for result in results]
    names, ours, flops = [about["name"] for about in abouts], abouts[0], results[0]["flops"]
    rate = max(result["rate"] for result in results)
    lines = [
        f"size {options.size}: images {'x'.join(map(str, ours['shape']))}, batch {options.batch}, {options.dtype}, "
        f"on {ours['device']}",
        f"{shared.processor()}, {shared.cores()} cores; Python {platform.python_version()}",
    ]
    for about in abouts:
        lines += [
            f"{about['name']}: {about['parameters']:,} parameters; {about['versions']}",
            f"  {about['precision']}",
        ]
    reached = (f"{result['rate'] / 1e9:.4g} GFLOP/s ({result['about']['name']})" for result in results)
    lines += [
        *remarks,
        f"{options.repeats} repetitions: {'; '.join(timed(options, task) for task in options.tasks)}",
        "median (least to most); ours / peer is of speeds, its range that of neighbouring repetitions",
        f"an image takes {flops['evaluation'] / options.batch / 1e9:.4g} GFLOP an evaluation, "
        f"{flops['training'] / options.batch / 1e9:.4g} a step of training; products of large matrices reach",
        f"  {', '.join(reached)}",
        "",
    ]
    rows = [["", names[0], *(cell for name in names[1:] for cell in (name, "ours / peer"))]]

    def row(title, cells):
        """`cells` one a side, beside an empty column for the ratio of every peer."""
        rows.append([title, cells[0], *(part for cell in cells[1:] for part in (cell, ""))])

    for task in options.tasks:
        speeds = [images_per_second(options, task, result[task]["seconds"]) for result in results]
        cells = [part for speed in speeds[1:] for part in (spread(speed), ratio(speeds[0], speed))]
        rows.append([f"{task}, images/s", spread(speeds[0]), *cells])
    for task in options.tasks:
        shares = [utilisation(options, task, result[task]["seconds"], flops, rate) for result in results]
        row(f"{task}, utilisation", [f"{100 * share:.0f} %" for share in shares])
    for task in options.tasks:
        row(f"{task}, first call, s", [f"{result[task]['first']:.1f}" for result in results])
        compiling = [result[task].get("compiling") for result in results]
        row("  of which XLA's compiler", ["" if s is None else f"{s:.1f}" for s in compiling])
    for kind in results[0]["memory"]:
        row(f"peak {kind} memory, MiB", [f"{result['memory'].get(kind, 0):,.0f}" for result in results])
    return "\n".join([*lines, shared.table(rows)])


def timed(options, task: str) -> str:
    """What one repetition is, for a person."""
    if task == "training":
        return f"training, {options.train_steps} steps"
    part, whole = evaluations(task, options.sampling_steps), evaluations(task)
    said = f"{whole} evaluations" if part == whole else f"the first {part} of {whole} evaluations, scaled"
    return f"{task}, {said}"


def doubts(options, results: list[dict]) -> list[str]:
    """What is wrong with the figures, if anything."""
    differing = [
        f"{task} of {result['about']['name']}"
        for result in results
        for task in options.tasks
        if shared.unsteady(result[task]["seconds"])
    ]
    if not differing:
        return []
    return [
        f"repetitions differ by more than {shared.UNSTEADY} times (other work on the machine?), do not trust "
        f"{', '.join(differing)}"
    ]


def peers_of(options, ours: dict) -> tuple[list, list[str]]:
    """The peers that run here, and a line on each that does not.

    Raises:
      SideError: a peer's network is another.
    """
    if not options.peers:
        return [], ["no peer was asked for: ours alone"]
    if missing := shared.absent():
        return [], [f"no peer: {missing} not installed; pip install 'diffusion_jax[parity]' to compare"]
    sides, remarks = [], []
    for peer in options.peers:
        try:
            side = shared.Side(f"{PACKAGE}.peer", argparse.Namespace(**vars(options), peer=peer), ours)
        except SideError as error:
            remarks.append(f"no diffusers, {peer}: {error}")
            continue
        if not side.runs:
            return [], [f"no peer: this torch sees no {ours['platform']}"]
        if (parameters := side("about")["parameters"]) != ours["parameters"]:
            raise SideError(f"ours has {ours['parameters']:,} parameters, diffusers' {parameters:,}: not one network")
        sides.append(side)
    return sides, remarks


def main(arguments: list[str] | None = None):
    """The command `python -m experiments.benchmarks.ddpm`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    shared.check_json(parser, options.json)
    options.batch = options.batch or BATCHES[options.size]
    options.sampling_steps = TABLE if options.whole else options.sampling_steps
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer room on the same GPU
    started = time.perf_counter()
    ours = shared.Side(f"{PACKAGE}.ours", options)
    peers, remarks = peers_of(options, ours("about"))
    results, failed = measure(options, [ours, *peers])
    remarks += [f"no {results[i]['about']['name']}: it has failed; {why}" for i, why in failed.items()]
    results = [result for i, result in enumerate(results) if i not in failed]
    print(report(options, results, remarks))
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    for doubt in doubts(options, results):
        print(f"DOUBTFUL: {doubt}")
    if options.json:
        shared.write_json(options.json, options, sides=results, remarks=remarks)


def _parser():
    def some_of(names):
        def parse(text):
            chosen = [name for name in text.split(",") if name]
            if wrong := [name for name in chosen if name not in names]:
                raise argparse.ArgumentTypeError(f"{wrong[0]}: choose from {', '.join(names)}")
            return [name for name in names if name in chosen]

        return parse

    parser = argparse.ArgumentParser(
        prog=f"python -m {PACKAGE}.ddpm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, count = parser.add_argument, shared.count
    add("--size", choices=tuple(BATCHES), default="cifar", help="of the network and its images (%(default)s)")
    add("--tasks", type=some_of(TASKS), default=list(TASKS), metavar="LIST", help=f"of {','.join(TASKS)} (all)")
    peers = {"type": some_of(PEERS), "default": ["eager"], "metavar": "LIST"}
    add("--peers", **peers, help=f"of {','.join(PEERS)}, or '' for none (eager)")
    batches = ", ".join(f"{size} {batch}" for size, batch in BATCHES.items())
    add("--batch", type=count, metavar="B", help=f"images at a time, in training and in sampling ({batches})")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of convolutions and products")
    add("--repeats", type=count, default=5, metavar="N", help="timed repetitions of each side and task (%(default)s)")
    add("--train-steps", type=count, default=2, metavar="N", help="a repetition (%(default)s); a GPU wants 20")
    add("--sampling-steps", type=count, default=5, metavar="N", help="of each chain, its first (%(default)s)")
    add("--whole", action="store_true", help="time the whole chains")
    add("--json", type=Path, metavar="PATH", help="also write every figure there")
    return parser


if __name__ == "__main__":
    shared.run(main)
