"""Several hosts: real processes that find each other through `jax.distributed`."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import swiss_roll
from diffusion_jax import sample
from diffusion_jax.config import override
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.loop import fit

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

CONFIG = Path(swiss_roll.__file__)
ROOT = CONFIG.parent.parent
# The average is the parameters themselves, and four steps move a weight by up to 0.003 (Adam's have the size of the
# learning rate, whatever the gradient).
TOLD = [
    *(f"--config.train.{x}" for x in ("steps=4", "batch_size=16", "warmup_steps=1", "ema_decay=0.0")),
    *(f"--config.log.{x}" for x in ("sample_every=4", "samples=12")),
]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def two(workdir: Path, devices: int, *arguments: str):
    """Train on two hosts of `devices` each. Returns the parameters."""
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",  # the last counts
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "diffusion_jax.train", "--config", CONFIG, "--workdir", workdir, *TOLD]
    where = [*arguments, "--coordinator", f"localhost:{free_port()}", "--hosts", "2", "--host"]
    hosts = [
        subprocess.Popen([*command, *where, str(i)], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    for process in hosts:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert (workdir / "samples" / "step_00000004.png").exists()
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        experiment = swiss_roll.build(swiss_roll.get_config())
        return checkpoints.restore("ema", jax.eval_shape(experiment.task.init, jax.random.key(0)))[1]


def one(workdir: Path, devices: int, *arguments: str):
    """Train on this host. Returns the parameters, as the devices hold them."""
    values = override(swiss_roll.get_config(), [*TOLD, *arguments])
    experiment = swiss_roll.build(values)
    return fit(experiment, values, workdir, config_file=CONFIG, devices=jax.devices()[:devices]).ema


def difference(a, b) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(np.abs(np.asarray(x) - np.asarray(y)).max() for x, y in pairs)


def test_two_hosts_of_two_devices_are_one_of_four(tmp_path):
    """The control: half of the batch would lead elsewhere, and so would gradients that no other host heard of."""
    found, expected = two(tmp_path / "two", 2), one(tmp_path / "one", 4)
    assert difference(found, expected) < 1e-6
    assert difference(one(tmp_path / "half", 4, "--config.train.batch_size=8"), expected) > 1e-3


@pytest.mark.rare
def test_parameters_spread_over_two_hosts_of_four_devices_are_those_of_one_of_eight(tmp_path):
    """Also drawn from: during training by both hosts, then by one, which may spread them or not."""
    fsdp = "--config.train.fsdp=True"
    found, expected = two(tmp_path / "two", 4, fsdp), one(tmp_path / "one", 8, fsdp)
    spread = [leaf for leaf in jax.tree.leaves(expected) if leaf.addressable_shards[0].data.size * 8 == leaf.size]
    assert len(spread) > 1
    assert difference(found, expected) < 1e-6
    drawn = []
    for name, options in (("one", ("--fsdp",)), ("two", ())):
        out = tmp_path / f"drawn by {name}"
        common = ["--workdir", str(tmp_path / name), "--num", "5", "--steps", "3", "--quiet"]
        sample.main([*common, *options, "--out", str(out)])
        drawn.append(np.load(out / "samples.npz")["points"])
    np.testing.assert_allclose(*drawn, atol=1e-4)
