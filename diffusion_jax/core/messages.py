"""Lines for a person."""

import sys


def line(message: str):
    """One line to the person at the terminal, on standard error."""
    print(message, file=sys.stderr, flush=True)
