"""Convolutions on CPUs are Eigen's."""

import os
import subprocess
import sys

import pytest

from diffusion_jax import cpu

PROGRAM = """
import jax, jax.numpy as jnp
from diffusion_jax import cli, cpu

def compiled(_):
    conv = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    text = jax.jit(conv).lower(jnp.ones((1, 16, 16, 32)), jnp.ones((3, 3, 32, 32))).compile().as_text()
    print("ynn" if "ynn_fusion" in text else "own")

{call}
"""


def computed_by(call: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_command_line_leaves_convolutions_to_eigen():
    """The control: without the flag they are YNNPACK's. Where they no longer are, `cpu` has lost its reason."""
    assert computed_by("cli.run(compiled, [])") == "own"
    assert computed_by("compiled(())") == "ynn"


@pytest.mark.parametrize("version", ["0.10.2", "0.11.0", "0.12.0.1"])
def test_other_flags_stay(version):
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    cpu.prefer_eigen(environment, version)
    assert environment["XLA_FLAGS"] == f"--xla_force_host_platform_device_count=8 {cpu.FLAG}=-individual_convolution"
    cpu.prefer_eigen(environment, version)
    assert environment["XLA_FLAGS"].count(cpu.FLAG) == 1


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
