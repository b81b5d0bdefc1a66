"""Several hosts: real processes that find each other through `jax.distributed`."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.training.checkpoint import Checkpoints
from tests import tiny

CONFIG = Path(tiny.__file__)
ROOT = CONFIG.parent.parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def train(workdir: Path, devices: int, *arguments: str):
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "diffusion_jax.train", "--config", str(CONFIG), "--workdir", str(workdir)),
            *("--config.train.steps=4", "--config.log.sample_every=4", *arguments),
        ],
        env=environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def ema(workdir: Path):
    experiment = tiny.build(tiny.get_config())
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore("ema", jax.eval_shape(experiment.init, jax.random.key(0)))[1]


def test_two_hosts_of_two_devices_are_one_of_four(tmp_path):
    port = free_port()
    hosts = [
        train(tmp_path / "two", 2, "--coordinator", f"localhost:{port}", "--hosts", "2", "--host", str(i))
        for i in range(2)
    ]
    for process in hosts:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    one = train(tmp_path / "one", 4)
    _, said = one.communicate(timeout=300)
    assert one.returncode == 0, said
    # Adam's first steps have the size of the learning rate whatever the gradient, so compare on that scale:
    # with a warm-up of 5 steps, 4 steps move a weight by up to 2.4e-4.
    for x, y in zip(jax.tree.leaves(ema(tmp_path / "one")), jax.tree.leaves(ema(tmp_path / "two")), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)
    assert (tmp_path / "two" / "samples" / "step_00000004.png").exists()
