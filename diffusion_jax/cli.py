"""What the command lines share: how help looks, and one clear line instead of a traceback."""

import argparse
import sys
from collections.abc import Callable

from diffusion_jax import compiled, cpu
from diffusion_jax.config import line
from diffusion_jax.errors import InputError, RunError


def parser(module: str, description: str) -> argparse.ArgumentParser:
    """The parser of `python -m module`; `description` is shown as it is written."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main: Callable, arguments: list[str] | None = None):
    """Call `main(arguments)`, and turn errors meant for people into one line and an exit status.

    Status 2: the input is at fault (`InputError`); 1: the run had to stop (`RunError`).
    """
    cpu.prefer_eigen()
    compiled.keep()
    try:
        main(sys.argv[1:] if arguments is None else arguments)
    except InputError as error:
        line(f"error: {error}")
        raise SystemExit(2) from None
    except RunError as error:
        line(f"stopped: {error}")
        raise SystemExit(1) from None
