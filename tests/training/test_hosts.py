"""Several hosts: real processes that find each other through `jax.distributed`."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from configs import swiss_roll
from diffusion_jax import sample
from diffusion_jax.config import override
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.loop import fit
from tests import tiny

CONFIG = Path(tiny.__file__)
ROOT = CONFIG.parent.parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def train(workdir: Path, devices: int, *arguments: str, config: Path = CONFIG):
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",  # the last counts
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "diffusion_jax.train", "--config", str(config), "--workdir", str(workdir)),
            *("--config.train.steps=4", "--config.log.sample_every=4", *arguments),
        ],
        env=environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def two(workdir: Path, devices: int, *arguments: str, **kwargs):
    """Train on two hosts of `devices` each."""
    where = ("--coordinator", f"localhost:{free_port()}", "--hosts", "2", "--host")
    hosts = [train(workdir, devices, *arguments, *where, str(i), **kwargs) for i in range(2)]
    for process in hosts:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said


def ema(workdir: Path, experiment):
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore("ema", jax.eval_shape(experiment.init, jax.random.key(0)))[1]


def test_two_hosts_of_two_devices_are_one_of_four(tmp_path):
    two(tmp_path / "two", 2)
    one = train(tmp_path / "one", 4)
    _, said = one.communicate(timeout=300)
    assert one.returncode == 0, said
    # Adam's first steps have the size of the learning rate whatever the gradient, so compare on that scale:
    # with a warm-up of 5 steps, 4 steps move a weight by up to 2.4e-4.
    experiment = tiny.build(tiny.get_config())
    found = (jax.tree.leaves(ema(tmp_path / name, experiment)) for name in ("one", "two"))
    for x, y in zip(*found, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)
    assert (tmp_path / "two" / "samples" / "step_00000004.png").exists()


def test_parameters_spread_over_two_hosts_of_four_devices_are_those_of_one_of_eight(tmp_path):
    """Also drawn from: during training by both hosts, then by one, which may spread them or not."""
    config = Path(swiss_roll.__file__)
    told = ["--config.train.fsdp=True", "--config.train.batch_size=16", "--config.log.samples=12"]
    two(tmp_path / "two", 4, *told, config=config)
    values = override(swiss_roll.get_config(), [*told, "--config.train.steps=4", "--config.log.sample_every=4"])
    experiment = swiss_roll.build(values)
    one = fit(experiment, values, tmp_path / "one", config_file=config)
    spread = [leaf for leaf in jax.tree.leaves(one.ema) if leaf.addressable_shards[0].data.size * 8 == leaf.size]
    assert len(spread) > 1
    for x, y in zip(jax.tree.leaves(one.ema), jax.tree.leaves(ema(tmp_path / "two", experiment)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)  # Adam at a learning rate of up to 2e-5
    assert (tmp_path / "two" / "samples" / "step_00000004.png").exists()
    drawn = []
    for name, options in (("one", ("--fsdp",)), ("two", ())):
        out = tmp_path / f"drawn by {name}"
        common = ["--workdir", str(tmp_path / name), "--num", "5", "--steps", "3", "--quiet"]
        sample.main([*common, *options, "--out", str(out)])
        drawn.append(np.load(out / "samples.npz")["points"])
    np.testing.assert_allclose(*drawn, atol=1e-4)
