"""Writers of the numbers and pictures of a run.

A writer is any object with the methods of `Writer`. `fit` takes a function that makes them, for the host that writes;
a config file may define it: `writers(config, workdir) -> [Writer, ...]`.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from diffusion_jax.core.messages import line

SECONDS = 10.0  # between two plain lines, and between two moments at which TensorBoard's file is brought to disk


class Writer(Protocol):
    """Takes the numbers and pictures of a run; one host calls it, between two calls of the compiled steps.

    An OSError that it raises ends the run in one line; the last checkpoint is intact.
    """

    def scalars(self, step: int, values: Mapping[str, float]):
        """Take numbers, all finite: means since the last ones, or the result of a measurement."""

    def picture(self, step: int, name: str, image: np.ndarray):
        """Take a picture, uint8 [H, W, C]."""

    def close(self):
        """Called once, when the run ends, whatever ended it."""


MakeWriters: TypeAlias = Callable[[Path], Sequence[Writer]]  # of the work directory


class JsonLines:
    """A JSON object a line, each written at once; lines from before stay."""

    def __init__(self, path: Path):
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 (closed by close)
        if self._file.tell() and not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # a line that a kill cut off must not spoil the next

    def scalars(self, step: int, values: Mapping[str, float]):
        """A line."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")

    def picture(self, step: int, name: str, image: np.ndarray):
        """Nothing: pictures are files of their own."""

    def close(self):
        """Close the file."""
        self._file.close()


class TensorBoard:
    """An event file in `folder`, written by the calling thread, so a full disk raises an error there."""

    def __init__(self, folder: Path):
        folder.mkdir(exist_ok=True)
        # The name is of the host and the second; two runs may begin within one.
        self._events = EventsWriter(str(folder / "events"), f".{secrets.token_hex(4)}")
        self._saved = 0.0

    def scalars(self, step: int, values: Mapping[str, float]):
        """An event with all of them."""
        self._write(step, [summary.scalar(name, value) for name, value in values.items()])
        if time.monotonic() - self._saved > SECONDS:
            self._save()

    def picture(self, step: int, name: str, image: np.ndarray):
        """An event with the picture."""
        self._write(step, [summary.image(name, image, dataformats="HWC")])
        self._save()

    def close(self):
        """Close the file."""
        self._events.close()

    def _write(self, step: int, parts):
        summary = Summary(value=[value for part in parts for value in part.value])
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _save(self):
        self._events.flush()
        self._saved = time.monotonic()


class Lines:
    """Plain lines on standard error, for where there is no terminal that a bar could move in."""

    def __init__(self, total: int):
        self._total, self._last = total, 0.0

    def scalars(self, step: int, values: Mapping[str, float]):
        """A line; none where the last was just now, but for that of the last step."""
        if step == self._total or time.monotonic() - self._last > SECONDS:
            text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            line(f"step {step:,} of {self._total:,}: {text}")
            self._last = time.monotonic()

    def picture(self, step: int, name: str, image: np.ndarray):
        """Nothing."""

    def close(self):
        """Nothing."""


def tensorboard(workdir: Path) -> list[Writer]:
    """The default writers of a run, beside metrics.jsonl."""
    return [TensorBoard(workdir / "tensorboard")]
