"""Speed of DDPM: images a second in training and in 1000-step sampling, beside diffusers on PyTorch.

  python -m experiments.benchmarks.ddpm
  python -m experiments.benchmarks.ddpm --size digits --batch 64 --repeats 10
  python -m experiments.benchmarks.ddpm --batch 128 --dtype bfloat16 --compile --json speed.json    (a GPU)

The same network on both sides (diffusers' UNet2DModel; the numbers of parameters are printed and must agree),
the same batch, type and work: uniform times, noise, mean squared error of the noise, dropout, gradients clipped
by their global norm, Adam, moving average; then the ancestral chain with clipped x0 and fixed-large variance.

Ours is what `diffusion_jax.train` and `diffusion_jax.sample` compile. The peer is set up as well as it can be
without changing it: channels-last memory, fused Adam, foreach clipping and averaging, scaled-dot-product
attention, as many threads as cores, cuDNN's autotuner, bfloat16 by autocast. Both may use TF32 on a GPU, as JAX
does by default. --compile adds torch.compile.

Each side has a process of its own, so that neither's memory nor idle threads are the other's. Repetitions take
turns on one device. The first call, which compiles, is shown apart; two rounds of warm-up are not. Devices are
chosen by JAX_PLATFORMS and CUDA_VISIBLE_DEVICES. The peer needs torch and diffusers (the extra "parity").

On a CPU the machine must be idle: torch's threads wait for one another, and other work slows it far more than us.
"""

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import signal
import statistics
import time
from pathlib import Path

from tqdm import tqdm

# JAX and torch are imported by the sides alone: a process starts with its parent's peak memory as its own.

CHAIN = 1000
TASKS = ("training", "sampling")
UNSTEADY = 1.3  # the slowest over the fastest repetition, above which the figures are doubtful
WARM_UPS = 2  # torch.compile still works at a task's second call, and again after the other task


class Side:
    """One implementation, in a process of its own. `make(options, ours)` of its module returns

        about:    a dict of plain values: "name", "versions", "device", "platform", "parameters"; or "missing",
                  why it cannot run
        training: runs options.train_steps training steps, and waits for them
        sampling: runs options.sampling_steps steps of the chain, and waits for them
        memory:   () -> peak MiB on the accelerator, or None

    `ours` is what our side says about itself, None for our side.
    """

    def __init__(self, module: str, options: argparse.Namespace, ours: dict | None = None):
        context = multiprocessing.get_context("spawn")
        self._connection, far_end = context.Pipe()
        context.Process(target=_serve, args=(module, options, ours, far_end), daemon=True).start()
        far_end.close()
        self.about = self._receive()

    def seconds(self, task: str) -> float:
        """How long `task` took."""
        self._connection.send(task)
        return self._receive()

    def memory(self) -> dict[str, float]:
        """Peak memory until now, MiB: of the process, and of the accelerator if there is one."""
        self._connection.send("memory")
        return self._receive()

    def _receive(self):
        try:
            return self._connection.recv()
        except EOFError:
            raise SystemExit("error: one side has stopped; its own message stands above") from None


def _serve(module, options, ours, connection):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it this process
    about, training, sampling, device_memory = importlib.import_module(module).make(options, ours)
    connection.send(about)
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if request == "memory":
            # Kilobytes on Linux, bytes on macOS.
            unit = 2**20 if platform.system() == "Darwin" else 2**10
            host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
            device = device_memory()
            connection.send({"host": host} | ({} if device is None else {"device": device}))
        else:
            start = time.perf_counter()
            {"training": training, "sampling": sampling}[request]()
            connection.send(time.perf_counter() - start)


def measure(sides: list[Side], repeats: int) -> list[dict]:
    """Per side {task: {"first": seconds, "seconds": [repeats]}, "memory": MiB}, repetitions taking turns."""
    results = [{} for _ in sides]
    rounds = ["first call", *["warm-up"] * WARM_UPS, *(f"{n} of {repeats}" for n in range(1, repeats + 1))]
    turns = [(r, task, i) for r in rounds for task in TASKS for i in range(len(sides))]
    with tqdm(turns, unit="run", dynamic_ncols=True) as bar:
        for what, task, i in bar:
            bar.set_postfix_str(f"{sides[i].about['name']}, {task}, {what}")
            seconds = sides[i].seconds(task)
            if what == "first call":
                results[i][task] = {"first": seconds, "seconds": []}
            elif what != "warm-up":
                results[i][task]["seconds"].append(seconds)
    for side, result in zip(sides, results, strict=True):
        result["memory"] = side.memory()
    return results


def images_per_second(options, task: str, seconds: list[float]) -> list[float]:
    """Of each repetition; a part of the chain is scaled to the whole."""
    if task == "training":
        return [options.train_steps * options.batch / s for s in seconds]
    return [options.batch / (s * CHAIN / options.sampling_steps) for s in seconds]


def report(options, sides: list[Side], results: list[dict]) -> str:
    """The table, for people."""
    ours = sides[0].about
    lines = [
        f"DDPM at the size of {options.size}: images {'x'.join(map(str, ours['shape']))}, batch {options.batch}, "
        f"{options.dtype}, on {ours['device']}",
        f"{processor()}, {cores()} cores; Python {platform.python_version()}",
        *(f"{s.about['name']}: {s.about['parameters']:,} parameters; {s.about['versions']}" for s in sides),
        f"training: {options.repeats} repetitions of {options.train_steps} steps; sampling: {options.repeats} of "
        + (
            f"the whole chain of {CHAIN} steps"
            if options.sampling_steps == CHAIN
            else f"the first {options.sampling_steps} of the {CHAIN} steps, scaled to {CHAIN}"
        ),
        "median (least to most); the ratio's range is over pairs of neighbouring repetitions",
        "",
    ]
    rows = [["", *(s.about["name"] for s in sides), "ours / peer"]]
    for task in TASKS:
        speeds = [images_per_second(options, task, r[task]["seconds"]) for r in results]
        rows.append([f"{task}, images/s", *map(_spread, speeds)])
        if len(speeds) == 2:
            pairs = [a / b for a, b in zip(*speeds, strict=True)]
            median = statistics.median(speeds[0]) / statistics.median(speeds[1])
            rows[-1].append(f"{median:.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
    for task in TASKS:
        rows.append([f"{task}, first call, s", *(f"{r[task]['first']:.1f}" for r in results)])
    for kind in results[0]["memory"]:
        rows.append([f"peak {kind} memory, MiB", *(f"{r['memory'].get(kind, 0):,.0f}" for r in results)])
    columns = len(sides) + (2 if len(sides) == 2 else 1)
    rows = [(row + [""] * columns)[:columns] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        lines.append("   ".join(cells).rstrip())
    return "\n".join(lines)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor() -> str:
    """The CPU's name, as well as the system tells it."""
    try:
        named = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
        return named[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main():
    """The command `python -m experiments.benchmarks.ddpm`."""
    parser = _parser()
    options = parser.parse_args()
    if options.sampling_steps > CHAIN:
        parser.error(f"--sampling-steps {options.sampling_steps}: the chain has {CHAIN}")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.parent}")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer room on the same GPU
    started = time.perf_counter()
    packages = "experiments.benchmarks"
    if options.whole:
        options.sampling_steps = CHAIN
    sides = [Side(f"{packages}.ours", options)]
    absent = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
    if absent:
        print(f"{' and '.join(absent)} not installed: ours alone; pip install 'diffusion_jax[parity]' to compare")
    else:
        peer = Side(f"{packages}.peer", options, sides[0].about)
        if "missing" in peer.about:
            print(f"{peer.about['missing']}: ours alone")
        else:
            sides.append(peer)
    results = measure(sides, options.repeats)
    print(report(options, sides, results))
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    times = [result[task]["seconds"] for result in results for task in TASKS]
    if max(max(seconds) / min(seconds) for seconds in times) > UNSTEADY:
        print("repetitions differ too much (other work on the machine?): these figures are not to be trusted")
    if options.json:
        values = {name: value for name, value in vars(options).items() if name != "json"}
        record = {
            "options": values | {"chain": CHAIN, "processor": processor(), "cores": cores()},
            "sides": [side.about | result for side, result in zip(sides, results, strict=True)],
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def _parser():
    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    def count(text):
        if (value := int(text)) < 1:
            raise argparse.ArgumentTypeError(f"{text} must be at least 1")
        return value

    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.ddpm", description=__doc__, formatter_class=Formatter
    )
    add = parser.add_argument
    add("--size", choices=("cifar", "digits"), default="cifar", help="the network of configs/SIZE.py")
    add("--batch", type=count, default=8, metavar="B", help="images at a time, in training and in sampling")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of convolutions and products")
    add("--repeats", type=count, default=5, metavar="N", help="timed repetitions of each side and task")
    add("--train-steps", type=count, default=2, metavar="N", help="training steps a repetition; a GPU wants 20")
    add("--sampling-steps", type=count, default=5, metavar="N", help=f"first steps of the {CHAIN} that are timed")
    add("--whole", action="store_true", help=f"time all {CHAIN} steps of the chain")
    add("--compile", action="store_true", help="torch.compile for the peer")
    add("--json", type=Path, metavar="PATH", help="also write every figure there")
    return parser


if __name__ == "__main__":
    main()
