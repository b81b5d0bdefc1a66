"""Convolutions on CPUs are Eigen's, memory is kept, and every core is a device where samples are drawn."""

import os
import platform
import subprocess
import sys

import jax
import numpy as np
import pytest

from diffusion_jax.app import cpu, sampling

pytestmark = pytest.mark.slow

PROGRAM = """
import jax, jax.numpy as jnp
from diffusion_jax.app import cli, cpu

def compiled(_):
    conv = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    text = jax.jit(conv).lower(jnp.ones((1, 16, 16, 32)), jnp.ones((3, 3, 32, 32))).compile().as_text()
    print("ynn" if "ynn_fusion" in text else "own", len(jax.devices()))

{call}
"""

# The largest difference between a chain on two devices at once and on one after the other.
LOOP = """
import jax, jax.numpy as jnp, numpy as np
from diffusion_jax.app import cli, cpu
from diffusion_jax.models import UNet

def looped(_):
    model = UNet(channels=32, multipliers=(1, 2), blocks=1, attention_levels=(), groups=8, out_channels=1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 64, 8, 8, 1)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x[0], jnp.zeros(64))
    spread = lambda leaf: 0.5 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
    params = jax.tree.map(lambda leaf: rng.normal(0, spread(leaf), leaf.shape).astype(np.float32), shapes)

    def chain(params, x):
        def step(x, t):
            return (x + jnp.tanh(model.apply(params, x, jnp.full(len(x), 1000 * t)))) / 2, None

        return jax.lax.scan(step, x, jnp.linspace(1, 0, 16))[0]

    alone = jax.jit(chain)
    one = np.stack([alone(params, share) for share in x])
    print(np.abs(jax.pmap(chain, in_axes=(None, 0))(params, x) - one).max())

{call}
"""

# A program whose intermediate values take 128 MiB, run five times: the pages that the system hands out for the last.
PAGES = """
import resource, jax, jax.numpy as jnp
from diffusion_jax.app import cpu

{call}
total = jax.jit(lambda x: jnp.cumsum(jnp.sin(x + jnp.arange(2.0**24)).reshape(4096, -1), 0).max(1).sum())
x = jax.block_until_ready(jnp.float32(1))
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    total(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**20)
"""


def printed(program: str, call: str) -> list[str]:
    """The words that `program` prints with `call` in its place, in a process where XLA_FLAGS says nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", program.format(call=call)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def computed_by(call: str) -> list[str]:
    """["ynn" or "own", number of devices]."""
    return printed(PROGRAM, call)


def test_a_command_line_leaves_convolutions_to_eigen():
    """The control: without the flag they are YNNPACK's. Where they no longer are, `cpu` has lost its reason.

    On several devices Eigen's go wrong: those stay YNNPACK's.
    """
    assert computed_by("cli.run(compiled, [])") == ["own", "1"]
    assert computed_by("compiled(())") == ["ynn", "1"]
    assert computed_by("cpu.one_device_a_core(cores=3); cli.run(compiled, [])") == ["ynn", "3"]


@pytest.mark.exhaustive
def test_two_devices_draw_what_one_draws():
    """A chain of 16 looks at 64 examples a device, as the command lines compile it.

    With Eigen's convolutions the first four of each device were wrong, by 6e-3 of about 1.
    """
    assert float(*printed(LOOP, "cpu.one_device_a_core(cores=2); cli.run(looped, [])")) < 1e-5


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_is_kept_from_run_to_run():
    """64 MiB more are a library's own, in another thread. The control: otherwise all of it is handed out again."""
    kept, fresh = (float(*printed(PAGES, call)) for call in ("cpu.keep_memory()", ""))
    assert kept < 96
    assert fresh > 128


@pytest.mark.parametrize("version", ["0.10.2", "0.11.0", "0.12.0.1"])
def test_other_flags_stay(version):
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_NUM_CPU_DEVICES": "1"}
    cpu.prefer_eigen(environment, version)
    assert environment["XLA_FLAGS"] == f"--xla_force_host_platform_device_count=1 {cpu.FLAG}=-individual_convolution"
    cpu.prefer_eigen(environment, version)
    assert environment["XLA_FLAGS"].count(cpu.FLAG) == 1


@pytest.mark.parametrize(
    "environment", [{"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, {"JAX_NUM_CPU_DEVICES": "2"}]
)
def test_eigen_is_not_asked_for_where_a_cpu_is_several_devices(environment):
    before = dict(environment)
    cpu.prefer_eigen(environment, "0.10.2")
    assert environment == before


@pytest.mark.parametrize("given", ["", f"{cpu.FLAG}="])
@pytest.mark.parametrize("version", ["0.9.2", "0.13.0", "1.0"])
def test_nothing_is_asked_of_a_version_that_was_not_tried(given, version):
    environment = {"XLA_FLAGS": given}
    cpu.prefer_eigen(environment, version)
    assert environment == {"XLA_FLAGS": given}


def test_what_the_user_says_of_it_holds():
    environment = {"XLA_FLAGS": f"{cpu.FLAG}="}
    cpu.prefer_eigen(environment, "0.10.2")
    assert environment == {"XLA_FLAGS": f"{cpu.FLAG}="}


@pytest.mark.parametrize(("cores", "devices"), [(1, 1), (3, 3), (64, 8)])
def test_a_core_is_a_device_up_to_eight(cores, devices):
    environment = {"XLA_FLAGS": f"{cpu.FLAG}="}
    cpu.one_device_a_core(environment, cores)
    assert environment["XLA_FLAGS"] == f"{cpu.FLAG}= --xla_force_host_platform_device_count={devices}"


@pytest.mark.parametrize(("cores", "left"), [(1, f" {cpu.EIGEN}"), (2, "")])
def test_several_devices_take_back_what_was_asked_of_eigen(cores, left):
    environment = {"XLA_FLAGS": "--own=1"}
    cpu.prefer_eigen(environment, "0.10.2")
    cpu.one_device_a_core(environment, cores)
    assert environment["XLA_FLAGS"] == f"--own=1{left} --xla_force_host_platform_device_count={cores}"


def test_as_many_devices_as_the_user_asks_for():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    cpu.one_device_a_core(environment, 4)
    assert environment == {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}


@pytest.mark.parametrize(
    ("size", "mebibytes", "devices"),
    [(8, 0, 8), (1, 1, 1), (7, 1, 7), (9, 1, 5), (256, 128, 8), (256, 300, 3), (256, 512, 2), (9, 2000, 1)],
)
def test_a_batch_is_spread_over_the_devices_that_it_keeps_busy(size, mebibytes, devices):
    """9 examples over 8 devices are 2 each for 5 of them; all copies of the parameters take at most a gibibyte."""
    params = {"kernel": np.broadcast_to(np.float32(0), (mebibytes, 2**18))}
    assert sampling.spread(params, size).devices == jax.devices()[:devices]
    assert sampling.spread(params, size, fsdp=True).devices == jax.devices()
