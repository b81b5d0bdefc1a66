"""Command lines keep compiled programs where they say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import jax, jax.numpy as jnp
from diffusion_jax.app import cli

jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

def main(_):
    found = []
    jax.monitoring.register_event_listener(lambda event, **_: found.append(event.rsplit("/", 1)[-1]))
    jax.block_until_ready(jax.jit(jnp.tanh)(jnp.ones(3)))
    print("cache_hits" in found)

cli.run(main, [])
"""


def again(**environment: str) -> bool:
    """Whether a new process found its program compiled."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=ours | environment, capture_output=True, text=True, check=True)
    return done.stdout == "True\n"


def test_the_second_process_finds_what_the_first_compiled(tmp_path):
    assert not again(XDG_CACHE_HOME=str(tmp_path))
    assert again(XDG_CACHE_HOME=str(tmp_path))
    assert [folder.name for folder in tmp_path.iterdir()] == ["diffusion_jax"]
    assert not again(XDG_CACHE_HOME=str(tmp_path), JAX_ENABLE_COMPILATION_CACHE="false")


def test_the_folder_is_the_users_choice(tmp_path):
    chosen = {"XDG_CACHE_HOME": str(tmp_path / "other"), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "chosen")}
    assert not again(**chosen)
    assert again(**chosen)
    assert [folder.name for folder in tmp_path.iterdir()] == ["chosen"]


@pytest.mark.parametrize("home", ["file", "/proc/none"])
def test_where_no_folder_can_be_made_all_else_works(tmp_path, home):
    Path(tmp_path, "file").touch()
    assert not again(XDG_CACHE_HOME=str(Path(tmp_path, home)))
