"""Ending a run when the system asks for it, between two steps."""

import contextlib
import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

from diffusion_jax.core import ending
from diffusion_jax.core.messages import line


class Interrupt:
    """Notes SIGTERM, SIGHUP and SIGINT instead of dying of them; the loop asks after every call.

    With several hosts all must stop after the same one: JAX's coordination service agrees on one.
    """

    def __init__(self):
        self.signal: int | None = None

    def requested(self, call: int) -> bool:
        """Whether the run is to end now; asked after each call of the compiled steps, counted without a gap."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(call):
            self.signal = self.signal or signal.SIGTERM
            return True
        return jax.process_count() == 1 and self.signal is not None


@contextlib.contextmanager
def listening():
    """An `Interrupt` that listens inside the `with`. Ctrl-C, after any other signal, ends the process at once.

    Other signals may come twice: a terminal that is closed sends SIGHUP, and so does its shell. Outside of the main
    thread there is no listening to signals, which a line says.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        line("training outside of the main thread: no signal is listened to, one loses the steps since a checkpoint")
        yield interrupt
        return
    several = jax.process_count() > 1  # SIGTERM is JAX's then, and tells the other hosts

    def hear(number: int):
        if interrupt.signal is None:
            interrupt.signal = number
            ending.say(f"signal {number}: the step in progress is finished and saved; Ctrl-C ends at once")
            if several:
                os.kill(os.getpid(), signal.SIGTERM)
        elif number == signal.SIGINT:
            ending.end(number, "; the same command goes on from the last checkpoint")

    with ending.hearing(hear, [number for number in ending.SIGNALS if not (several and number == signal.SIGTERM)]):
        yield interrupt
