"""Ending a run when the system asks for it, between two steps."""

import contextlib
import signal

import jax
from jax.experimental import multihost_utils


class Interrupt:
    """Notes SIGTERM and SIGINT instead of dying of them; the loop asks after every call.

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
    """An `Interrupt` that listens inside the `with`. A second Ctrl-C ends the process at once."""
    interrupt = Interrupt()

    def note(number, frame):
        interrupt.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    numbers = (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else (signal.SIGINT,)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
