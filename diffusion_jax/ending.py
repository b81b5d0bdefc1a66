"""How a process ends that is asked to: in one line, at once, whatever it is computing.

Python calls its own handlers of signals between two of its instructions, so that a compiled program holds them up for
as long as it runs. Here the system's handler writes the signal's number into a pipe, and a thread reads it.

Only the standard library is imported: commands listen before they import the rest, which takes seconds.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable

from diffusion_jax import files

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


class _Ears:
    """The pipe, the thread that reads it, and who is told."""

    def __init__(self):
        self.told: tuple[Iterable[int], Callable] = ((), end)
        read, self.write = os.pipe()
        os.set_blocking(self.write, False)
        threading.Thread(target=self._listen, args=(read,), name="signals", daemon=True).start()

    def _listen(self, read: int):
        while number := os.read(read, 1):
            numbers, hear = self.told
            if number[0] in numbers:
                hear(number[0])


_ears: _Ears | None = None
_always = contextlib.ExitStack()  # never left


@contextlib.contextmanager
def hearing(hear: Callable, signals: Iterable[int] = SIGNALS):
    """Inside the `with`, `hear(number)` is called for each of `signals`, in a thread. For the main thread alone.

    One that the process was told to ignore, as by nohup, is ignored still.
    """
    global _ears
    _ears = _ears or _Ears()
    before = {number: signal.getsignal(number) for number in signals}
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    told, _ears.told = _ears.told, (ours, hear)
    wakeup = signal.set_wakeup_fd(_ears.write, warn_on_full_buffer=False)
    for number in ours:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(wakeup)
        _ears.told = told


def at_once():
    """From now on every one of `SIGNALS` ends the process; for commands."""
    _always.enter_context(hearing(end))
