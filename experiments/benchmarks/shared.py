"""What the benchmarks share: a process for each side, tables, and what is said of the machine.

JAX and torch are imported by the sides alone: a process starts with its parent's peak memory as its own.
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
from collections.abc import Callable
from pathlib import Path

UNSTEADY = 1.3  # the slowest over the fastest repetition, above which the figures are doubtful


class SideError(RuntimeError):
    """A side could not do what it was asked; the message is one line."""


class Side:
    """One implementation, in a process of its own: `side("method", *arguments)` is what it answers.

    `make(options, ours)` of its module returns the object that has the methods, or None where it cannot run;
    `ours` is what our side says about itself, None for our side. What a method raises is a `SideError` here.
    """

    def __init__(self, module: str, options: argparse.Namespace, ours: dict | None = None):
        context = multiprocessing.get_context("spawn")
        self._connection, far_end = context.Pipe()
        context.Process(target=_serve, args=(module, options, ours, far_end), daemon=True).start()
        far_end.close()
        self.runs = self._receive()

    def __call__(self, method: str, *arguments):
        self._connection.send((method, arguments))
        return self._receive()

    def _receive(self):
        try:
            answer = self._connection.recv()
        except EOFError:
            raise SideError("its process has ended; what it said stands above") from None
        if isinstance(answer, SideError):
            raise answer
        return answer


def _serve(module, options, ours, connection):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it this process
    side = importlib.import_module(module).make(options, ours)
    connection.send(side is not None)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = getattr(side, method)(*arguments)
        except Exception as error:
            said = str(error).strip().splitlines()
            answer = SideError(f"{type(error).__name__}: {said[0] if said else 'nothing more is said'}")
        connection.send(answer)


def absent() -> str:
    """Which of the peer's packages are missing, for a person; empty where none is."""
    return " and ".join(name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None)


# ---- Tables, for people.


def table(rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell, numbers to the right."""
    columns = max(map(len, rows))
    rows = [row + [""] * (columns - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """The median (least to most)."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Of medians (least to most of neighbouring repetitions)."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    median = statistics.median(ours) / statistics.median(theirs)
    return f"{median:.2f} ({min(pairs):.2f} to {max(pairs):.2f})"


def unsteady(seconds: list[float]) -> bool:
    """Whether repetitions differ so much that other work must have run."""
    return max(seconds) / min(seconds) > UNSTEADY


# ---- The machine.


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


def host_memory() -> float:
    """Peak MiB of this process until now."""
    unit = 2**20 if platform.system() == "Darwin" else 2**10  # bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# ---- The command line.


def run(main: Callable):
    """Call `main()`; a side that has failed is one line and not a traceback."""
    try:
        main()
    except SideError as error:
        raise SystemExit(f"error: {error}") from None


def count(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def check_json(parser: argparse.ArgumentParser, path: Path | None):
    """End with a message unless a record can be written to `path`."""
    if path and not path.parent.is_dir():
        parser.error(f"--json {path}: there is no folder {path.parent}")


def write_json(path: Path, options: argparse.Namespace, **record):
    """Every figure, with the options and the machine."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    about = {"options": values | {"processor": processor(), "cores": cores()}}
    path.write_text(json.dumps(about | record, indent=1) + "\n")
