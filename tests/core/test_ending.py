"""Signals end a command in one line, whatever its main thread is doing."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diffusion_jax.core import ending
from diffusion_jax.training import interrupt

BLOCKED = """
import hashlib, os, sys
from diffusion_jax.core import ending, files
ending.at_once()
path = sys.argv[1]
def save(file):
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes within one call of C
files.write(path, save)
"""


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C is: shells start what they run in the background with it ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def blocked(tmp_path, *numbers: int, shell: tuple[str, ...] = ()):
    """(status, standard error) of a process that is sent signals in the midst of a long call, while it writes."""
    command = [*shell, sys.executable, "-c", BLOCKED, str(tmp_path / "file")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "busy\n"
        for number in numbers:
            process.send_signal(number)
        try:
            return process.wait(timeout=20), process.stderr.read()
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.stderr.read()


@pytest.mark.parametrize("number", ending.SIGNALS)
def test_a_signal_ends_at_once_in_one_line(tmp_path, number):
    assert blocked(tmp_path, number) == (128 + number, f"stopped by signal {int(number)}\n")
    assert not list(tmp_path.iterdir())  # not half a file


def test_what_the_process_is_told_to_ignore_is_ignored(tmp_path):
    nohup = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    assert blocked(tmp_path, signal.SIGHUP, signal.SIGTERM, shell=nohup)[0] == 128 + signal.SIGTERM


def until(condition):
    last = time.monotonic() + 10
    while not condition() and time.monotonic() < last:
        time.sleep(0.001)
    return condition()


@pytest.mark.parametrize("number", ending.SIGNALS)
def test_training_notes_a_signal_and_goes_on(number, capfd):
    before = [signal.getsignal(n) for n in ending.SIGNALS]
    with interrupt.listening() as stop:
        assert not stop.requested(1)
        os.kill(os.getpid(), number)
        assert until(lambda: stop.signal)
        os.kill(os.getpid(), signal.SIGHUP)  # a terminal that is closed sends it, and so does its shell
        assert until(lambda: stop.requested(2))
        assert stop.signal == number
    assert [signal.getsignal(n) for n in ending.SIGNALS] == before
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"signal {int(number)}: the step in progress is finished and saved" in said


def test_what_came_inside_is_heard_inside():
    inside, outside = [], []
    with ending.hearing(outside.append, [signal.SIGTERM]):
        for _ in range(100):
            with ending.hearing(inside.append, [signal.SIGTERM]):
                os.kill(os.getpid(), signal.SIGTERM)
    assert inside == [signal.SIGTERM] * 100
    assert not outside


def test_a_second_ctrl_c_ends_at_once(capfd, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with interrupt.listening() as stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert until(lambda: stop.signal)
        assert until(lambda: ended)
    assert ended == [130]
    assert "stopped by signal 2; the same command goes on from the last checkpoint" in capfd.readouterr().err


def test_outside_of_the_main_thread_there_is_no_listening(capsys):
    found = []

    def other():
        with interrupt.listening() as stop:
            found.append(stop.requested(1))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [False]
    assert "no signal is listened to" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "sample", "evaluate"])
def test_commands_listen_before_they_import_what_takes_seconds(name):
    text = (Path(ending.__file__).parent.parent / f"{name}.py").read_text()
    assert text.index("ending.at_once()") < text.index("import jax")
    light = "import sys, diffusion_jax.core.ending; sys.exit(any(x in sys.modules for x in ('jax', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0
