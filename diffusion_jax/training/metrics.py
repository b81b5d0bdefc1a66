"""Numbers and pictures of a run: read late, checked, and passed to its writers; a bar shows the progress."""

import collections
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np
from tqdm import tqdm

from diffusion_jax.core.errors import RunError
from diffusion_jax.core.protocols import OfStep
from diffusion_jax.training.writers import Lines, Writer

LAG = 2
FILE = "metrics.jsonl"  # in the work directory


def read(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl that are whole; none where there is no such file."""
    found = map(_parsed, path.read_bytes().splitlines() if path.is_file() else ())
    return [line for line in found if isinstance(line, dict) and type(line.get("step")) is int]


def _parsed(line: bytes):
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


class Log:
    """The log of one run.

    The host never waits for the steps it has just started: `push` reads the metrics that are computed, and waits
    only for those of `LAG` calls before. So the devices always have work queued, what is queued stays bounded, and
    every step's metrics are looked at.

    After a resume the steps since the last checkpoint are made again and their lines appended again, with the
    same values: in `metrics.jsonl` the last line of a step is the one that counts.

    Args:
      writers: take the numbers and pictures; closed at the end.
      start: the step before the first.
      total: the step after which the run ends.
      every: steps between lines; 0 for none. A line holds the means since the one before, and the speed.
      batch_size: the global one, for the speed in images a second.
      rates: name -> (`number of the update, from 0 -> number`), of which a line has that of its last update.
      shown: whether a person sees how far the run is: by a bar, or by lines where there is no terminal.
    """

    def __init__(
        self,
        writers: Sequence[Writer],
        start: int,
        total: int,
        every: int,
        batch_size: int,
        rates: Mapping[str, OfStep] = MappingProxyType({}),
        shown: bool = True,
    ):
        self._rates, self._host = rates, jax.local_devices(backend="cpu")[0]
        self._total, self._every, self._batch_size = total, every, batch_size
        self._pending: collections.deque = collections.deque()
        self._window: list[dict[str, float]] = []
        terminal = sys.stderr.isatty()
        self._writers = [*writers, *([Lines(total)] if shown and not terminal else [])]
        self._bar = tqdm(
            total=total, initial=start, unit="step", disable=not (shown and terminal), dynamic_ncols=True
        )
        self._restart_clock()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._bar.close()
        failed = None
        for writer in self._writers:
            try:
                writer.close()
            except OSError as error:
                failed = _refused(writer, error)
        if failed and kind is None:  # else something is told already
            raise failed

    def push(self, steps: Sequence[int], metrics: dict[str, jax.Array]):
        """Take the metrics of what one call made, still being computed. May raise as `drain` does.

        Args:
          steps: which they were. A line is written after the last of them, where one is due.
          metrics: name -> [n]; the first len(steps) are theirs.
        """
        self._pending.append((steps, metrics))
        self._read(LAG)

    def drain(self):
        """Wait for all steps pushed so far.

        Raises:
          RunError: a metric is not finite; the message names its step.
        """
        self._read(0)

    def picture(self, step: int, name: str, image: np.ndarray):
        """Write a picture, uint8 [H, W, C]. The time it took to draw does not count as training."""
        self._each(lambda writer: writer.picture(step, name, image))
        self.drain()  # free: what a picture is drawn of is computed; their time must not count as the next line's
        self._restart_clock()

    def scalars(self, step: int, values: dict[str, float]):
        """Write the numbers of a measurement; its time does not count as training."""
        self.drain()
        self._each(lambda writer: writer.scalars(step, values))
        self._restart_clock()

    def _read(self, left: int):
        while self._pending and (len(self._pending) > left or _computed(self._pending[0][1])):
            steps, metrics = self._pending.popleft()
            found = jax.device_get(metrics)
            for i, step in enumerate(steps):
                self._take(step, {name: float(values[i]) for name, values in found.items()})

    def _take(self, step: int, values: dict[str, float]):
        if not all(map(math.isfinite, values.values())):
            found = ", ".join(f"{name} = {value}" for name, value in values.items())
            raise RunError(f"not finite at step {step}: {found}")
        self._bar.update()
        if not self._every:
            return
        self._window.append(values)
        if step % self._every == 0 or step == self._total:
            self._write_line(step)

    def _write_line(self, step: int):
        names = sorted(self._window[0], key=lambda name: (name != "loss", name))
        means = {name: float(np.mean([v[name] for v in self._window])) for name in names}
        timed = len(self._window) - self._untimed
        speed = timed * self._batch_size / (time.perf_counter() - self._since)
        self._bar.set_postfix_str(f"loss {means['loss']:.4f}, {speed:.0f} examples/s")
        with jax.default_device(self._host):  # nothing waits for the steps that a device has queued
            rates = {name: float(rate(step - 1)) for name, rate in self._rates.items()}
        line = {**means, **rates, "examples_per_second": round(speed, 1)}
        self._each(lambda writer: writer.scalars(step, line))
        self._window.clear()
        self._restart_clock()

    def _each(self, tell: Callable[[Writer], None]):
        for writer in self._writers:
            try:
                tell(writer)
            except OSError as error:
                raise _refused(writer, error) from error

    def _restart_clock(self):
        self._since, self._untimed = time.perf_counter(), len(self._window)


def _computed(metrics: dict[str, jax.Array]) -> bool:
    return all(value.is_ready() for value in metrics.values())  # type: ignore[attr-defined]


def _refused(writer: Writer, error: OSError) -> RunError:
    where = f"{type(writer).__name__} of the run cannot be written"
    return RunError(f"{where} ({error.strerror or error}); free disk space and give the same command again")
