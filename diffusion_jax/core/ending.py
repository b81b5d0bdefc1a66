"""How a process ends that is asked to: in one line, at once, whatever it is computing.

Python calls its own handlers of signals between two of its instructions, so that a compiled program holds them up for
as long as it runs. Here the system's handler writes the signal's number into a pipe, and a thread reads it until a 0.

Only the standard library is imported: commands listen before they import the rest, which takes seconds.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from diffusion_jax.core import files

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end(number: int, about: str = ""):
    """End the process with status 128 + `number` and one line; what it was writing is removed."""
    with contextlib.suppress(OSError, RuntimeError):
        for path in [*files.unfinished]:
            path.unlink(missing_ok=True)
    say(f"stopped by signal {int(number)}{about}")
    os._exit(128 + number)


def say(text: str):
    """One line on standard error, whatever the main thread is doing; nothing where the terminal is gone."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    try:
        os.write(2, f"{chr(10) if bars else ''}{text}\n".encode())
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # so that nothing else fails for it
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)


_always = contextlib.ExitStack()  # never left


@contextlib.contextmanager
def hearing(hear: Callable[[int], Any], signals: Iterable[int] = SIGNALS):
    """Inside the `with`, `hear(number)` is called for each of `signals`, in a thread. For the main thread alone.

    Whatever came inside has been heard when the `with` is left. One that the process was told to ignore, as by nohup,
    is ignored still.
    """
    before = {number: signal.getsignal(number) for number in signals}
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    read, write = os.pipe()
    os.set_blocking(write, False)

    def listen():
        while number := os.read(read, 1)[0]:
            if number in ours:
                hear(number)

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in ours:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)  # first: a signal between these lines is heard outside, if anyone listens there
        for number in ours:
            signal.signal(number, before[number])
        os.write(write, b"\0")
        thread.join()
        os.close(read)
        os.close(write)


def at_once():
    """From now on every one of `SIGNALS` ends the process; for commands."""
    _always.enter_context(hearing(end))
