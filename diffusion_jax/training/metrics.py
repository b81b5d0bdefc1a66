"""Where numbers and pictures of a run go: a JSON-lines file, TensorBoard, and the progress bar."""

import json
from pathlib import Path

from tensorboardX import SummaryWriter


class Recorder:
    """Writes scalars and pictures under `workdir`; one host does it for all.

    After a resume the steps since the last checkpoint are made again, and their lines are appended again,
    with the same values: in `metrics.jsonl` the last line of a step is the one that counts.
    """

    def __init__(self, workdir: Path):
        self._file = open(workdir / "metrics.jsonl", "a", buffering=1)  # noqa: SIM115 (closed by __exit__)
        self._board = SummaryWriter(str(workdir / "tensorboard"), write_to_disk=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._board.close()

    def scalars(self, step: int, values: dict[str, float]):
        """One line of metrics at `step`."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image):
        """A picture, uint8 [H, W, C]."""
        self._board.add_image(name, image, step, dataformats="HWC")
        self._board.flush()


class NoRecorder:
    """What the other hosts have."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def scalars(self, step, values):
        """Nothing."""

    def picture(self, step, name, image):
        """Nothing."""
