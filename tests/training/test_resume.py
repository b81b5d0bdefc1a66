"""Resuming is exact to the bit: after any kill, the run ends where the unbroken one does."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.training import metrics
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.loop import fit
from diffusion_jax.training.state import init_state
from experiments.strangers import small
from tests import changed, tiny

pytestmark = pytest.mark.slow

CONFIG = Path(tiny.__file__)
ROOT = CONFIG.parent.parent
STEPS = 50


def config(**train):
    values = tiny.get_config()
    values.train.update(train)
    values.log.keep = 100
    return values


def saved(workdir: Path):
    """State and data position of the newest checkpoint."""
    values = config()
    experiment = tiny.build(values)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        key = jax.random.key(0)
        parts = experiment.task.init, experiment.optimization.optimizer.transformation, experiment.task.times
        template = jax.eval_shape(lambda key: init_state(*parts, key), key)
        return checkpoints.restore_latest(template)


def assert_same_run(a: Path, b: Path):
    (state_a, position_a), (state_b, position_b) = saved(a), saved(b)
    assert position_a == position_b
    for x, y in zip(jax.tree.leaves(state_a), jax.tree.leaves(state_b), strict=True):
        np.testing.assert_array_equal(x, y)


def losses(workdir: Path) -> dict[int, float]:
    """The loss of each logged step; the last line of a step counts."""
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def command(workdir: Path, steps: int, *more: str):
    return [
        *(sys.executable, "-m", "diffusion_jax.train", "--config", str(CONFIG), "--workdir", str(workdir)),
        *(f"--config.train.steps={steps}", "--config.log.keep=3", *more),
    ]


def start(*args, **kwargs):
    # One device is enough, and a smaller program.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"  # the last counts
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(*args, **kwargs), env=environment, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def finish(process) -> str:
    _, said = process.communicate(timeout=300)
    return said


def checkpoints_in(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of `STEPS` steps, with a checkpoint every five, that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("unbroken")
    process = start(workdir, STEPS, "--config.log.checkpoint_every=5")
    said = finish(process)
    assert process.returncode == 0, said
    return workdir


@pytest.mark.exhaustive
def test_kill_9_at_random_moments(tmp_path, unbroken):
    """Two kills; each comes up to half a second after the first new checkpoint: within a save as often as not."""
    moments = random.Random(0)
    killed = 0
    while killed < 2:
        before = checkpoints_in(tmp_path)
        process = start(tmp_path, STEPS, "--config.log.checkpoint_every=5")
        while checkpoints_in(tmp_path)[-1:] == before[-1:] and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        said = finish(process)
        assert process.returncode == -signal.SIGKILL, f"it ended before it could be killed: {said}"
        assert checkpoints_in(tmp_path)[-1] < STEPS
        killed += 1
    process = start(tmp_path, STEPS, "--config.log.checkpoint_every=5")
    said = finish(process)
    assert process.returncode == 0, said
    assert "going on from step" in said
    assert_same_run(tmp_path, unbroken)
    assert losses(tmp_path).keys() == losses(unbroken).keys()


@pytest.mark.exhaustive
def test_sigterm_saves_and_exits(tmp_path, unbroken):
    process = start(tmp_path, STEPS, "--config.log.checkpoint_every=1000")
    while not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text():
        assert process.poll() is None, finish(process)
        time.sleep(0.01)
    process.terminate()
    said = finish(process)
    assert process.returncode == 128 + signal.SIGTERM, said
    step = checkpoints_in(tmp_path)[-1]
    assert 0 < step < STEPS
    assert f"saved at step {step}" in said
    process = start(tmp_path, STEPS, "--config.log.checkpoint_every=1000")
    assert f"going on from step {step}" in finish(process)
    assert_same_run(tmp_path, unbroken)


@pytest.mark.exhaustive
def test_two_halves_make_a_whole_on_any_number_of_devices(tmp_path):
    """10 + 10 steps are 20 steps to the bit on as many devices; the data goes on where it was."""
    whole = fit(tiny.build(config()), config(), tmp_path / "whole", devices=jax.devices()[:2])
    fit(tiny.build(config()), config(steps=10), tmp_path / "halves", devices=jax.devices()[:2])
    halves = fit(tiny.build(config()), config(), tmp_path / "halves", devices=jax.devices()[:2])
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(halves), strict=True):
        np.testing.assert_array_equal(x, y)
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    # A checkpoint does not know how many devices wrote it.
    values = config(steps=22)
    assert int(fit(tiny.build(values), values, tmp_path / "halves", devices=jax.devices()[:1]).step) == 22


# ---- What a kill takes beside the state; a small experiment, in this process.


def fitted(workdir: Path):
    values = small.get_config()
    values.train.steps = 6
    values.log.update(checkpoint_every=2, sample_every=2, snapshot_every=2)
    fit(small.build(values), values, workdir, devices=jax.devices()[:1])


def left(workdir: Path) -> dict[str, bytes]:
    """What is kept for people and for later: previews and snapshots."""
    return {p.name: p.read_bytes() for name in ("samples", "averages") for p in (workdir / name).iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    fitted(workdir)
    assert {"step_00000002.png", "step_00000004.png", "step_00000006.png"} < left(workdir).keys()
    return workdir


@pytest.mark.parametrize("step", [2, 6])
def test_a_preview_that_a_kill_took_is_drawn_by_the_resume(tmp_path, undisturbed, monkeypatch, step):
    """Killed while it is written, after the checkpoint of its step; half a file of the dead process goes."""
    write = files.write

    def killed(path, save):
        if path.name == f"step_{step:08d}.png":
            path.parent.mkdir(exist_ok=True)
            path.with_name(f".{path.name}.4194304").write_bytes(b"half")
            raise KeyboardInterrupt
        return write(path, save)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path)
    assert checkpoints_in(tmp_path)[-1] == step
    assert left(tmp_path) != left(undisturbed)
    fitted(tmp_path)
    assert left(tmp_path) == left(undisturbed)
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "samples").iterdir()}
    fitted(tmp_path)  # all is there: nothing is drawn again
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "samples").iterdir()} == times


def test_an_emptied_work_directory_is_not_a_new_one(tmp_path, undisturbed):
    """Whether the checkpoints are gone alone or with what remembers them; the log reached more than two."""
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(InputError, match="are gone, up to that of step 6; restore them from a copy, or start again"):
        fitted(tmp_path / "run")
    (tmp_path / "run" / "checkpoints.json").unlink()
    with pytest.raises(InputError, match=r"metrics.jsonl reached step 6; restore them from a copy, or start again"):
        fitted(tmp_path / "run")


def test_a_log_that_was_cut_off_is_gone_on_with(tmp_path, undisturbed, capsys):
    """A kill may leave half a line; the next is a line of its own, and what is lost is said."""
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-5])
    fitted(tmp_path / "run")
    said = capsys.readouterr().err
    assert "checkpoint 6 in" in said
    assert "is gone; going on from step 4: 2 steps are made again" in said
    assert "going on from step 4 to 6 (1 steps that were logged are made again)" in said
    assert [line["step"] for line in metrics.read(log)] == [1, 2, 3, 4, 5, 5, 6]


def test_a_work_directory_of_another_config_is_left_alone(tmp_path):
    fit(tiny.build(config()), config(steps=2), tmp_path, devices=jax.devices()[:1])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = config(steps=2, learning_rate=1e-2)
    with pytest.raises(InputError, match=r"train\.learning_rate = 0\.0002 there, 0\.01 here"):
        fit(tiny.build(other), other, tmp_path, devices=jax.devices()[:1])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path):
    values = config(steps=20)
    values.log.checkpoint_every = 4

    def finite_until_step_9(count):
        return jax.numpy.where(count < 8, 1e-3, jax.numpy.inf)

    import optax

    experiment = changed.trained_by(tiny.build(config()), optax.sgd(finite_until_step_9))
    with pytest.raises(RunError, match=r"not finite at step 10: .*checkpoint of step 8 is intact"):
        fit(experiment, values, tmp_path, devices=jax.devices()[:1])
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [4, 8]
        _, params = checkpoints.restore("params", jax.eval_shape(experiment.task.init, jax.random.key(0)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
