"""What a run tells goes to every writer, hooks see each step that they are due at, and a full disk is one line."""

import contextlib
import errno
import json
import os

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from diffusion_jax.core.errors import RunError
from diffusion_jax.parallel.replicated import to_host
from diffusion_jax.training import metrics
from diffusion_jax.training.hooks import Hook
from diffusion_jax.training.loop import fit
from diffusion_jax.training.writers import TensorBoard, tensorboard
from experiments.strangers import small

pytestmark = pytest.mark.slow


class Memory:
    """A writer that keeps what it is given, and fails where it is told to."""

    def __init__(self, fails_at: int | None = None):
        self.told, self.pictures, self.closed, self._fails_at = [], [], 0, fails_at

    def scalars(self, step, values):
        if step == self._fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.told.append({"step": step, **values})

    def picture(self, step, name, image):
        self.pictures.append((step, name, image.shape, image.dtype))

    def close(self):
        self.closed += 1


def run(workdir, steps=6, **arguments):
    values = small.get_config()
    values.train.steps = steps
    values.log.update(every=2, checkpoint_every=3, snapshot_every=0, sample_every=4)
    return fit(small.build(values), values, workdir, devices=jax.devices()[:1], **arguments)


def events(folder):
    """Of every event file of the folder, its events; the records are length, CRC, bytes, CRC."""
    for path in sorted(folder.iterdir()):
        data, found = path.read_bytes(), []
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
        yield found


def test_every_writer_is_told_the_same(tmp_path):
    memory = Memory()
    run(tmp_path, writers=lambda workdir: [*tensorboard(workdir), memory])
    assert memory.told == [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in memory.told] == [2, 4, 6]
    assert [(step, name) for step, name, *_ in memory.pictures] == [(4, "samples"), (6, "samples")]
    assert memory.closed == 1
    (found,) = events(tmp_path / "tensorboard")
    shown = [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in found if e.summary.value]
    for line in memory.told:
        (values,) = (values for step, values in shown if step == line["step"] and "loss" in values)
        np.testing.assert_allclose([values[name] for name in line if name != "step"], [*line.values()][1:], rtol=1e-6)
    assert [e.step for e in found for v in e.summary.value if v.image.encoded_image_string] == [4, 6]


def test_two_event_files_of_one_second_are_two(tmp_path):
    for step in range(3):
        board = TensorBoard(tmp_path)
        board.scalars(step, {"loss": 1.0})
        board.close()
    assert sorted(found[-1].step for found in events(tmp_path)) == [0, 1, 2]


def test_a_writer_that_fails_ends_the_run_in_one_line_and_loses_nothing(tmp_path):
    failing = Memory(fails_at=6)
    with pytest.raises(RunError, match=r"Memory .* cannot be written \(No space left.*the checkpoint of step 3 is"):
        run(tmp_path / "run", steps=8, writers=lambda workdir: [failing])
    assert failing.closed == 1
    run(tmp_path / "run", steps=8)
    run(tmp_path / "whole", steps=8)
    last = [metrics.read(tmp_path / name / "metrics.jsonl")[-1]["loss"] for name in ("run", "whole")]
    assert last[0] == last[1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_a_full_disk_is_met_where_the_run_can_tell_it(tmp_path, capfd):
    """Every write to /dev/full fails, as to a full disk; no thread tells of it beside the one line."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"JsonLines .* cannot be written \(No space left"):
        run(tmp_path)
    assert "Traceback" not in capfd.readouterr().err


def test_hooks_see_each_step_that_they_are_due_at_before_its_checkpoint(tmp_path):
    seen, ends = [], []

    def look(step, state):
        saved = (tmp_path / "checkpoints" / str(step)).exists()
        seen.append((step, int(state.step), saved, to_host(state.params)["in"].tolist()))

    state = run(tmp_path, hooks=[Hook(3, look), Hook(0, lambda step, state: ends.append(step))])
    assert [call[:3] for call in seen] == [(3, 3, False), (6, 6, False)]
    assert ends == [6]
    assert seen[0][3] != seen[1][3] == state.params["in"].tolist()
    run(tmp_path, hooks=[Hook(1, look)])  # a run that is over calls nothing
    assert len(seen) == 2


def test_a_run_that_is_killed_before_a_checkpoint_comes_by_its_hook_again(tmp_path):
    seen = []

    def killed(step, state):
        seen.append(step)
        if len(seen) == 2:
            raise KeyboardInterrupt

    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt):
            run(tmp_path, hooks=[Hook(3, killed)])
    assert seen == [3, 6, 6]
