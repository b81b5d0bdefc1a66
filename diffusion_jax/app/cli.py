"""What the command lines share: how help looks, and one clear line instead of a traceback."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from diffusion_jax.app import compiled, cpu
from diffusion_jax.config import elsewhere
from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.core.messages import line


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are one line (`InputError`), without the usage before them."""

    def parse_args(self, arguments: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        options, rest = self.parse_known_args(arguments, namespace)
        if rest:
            self.error(f"unknown: {' '.join(rest)[:200]}; {elsewhere.remedy(rest)}".removesuffix("; "))
        return options

    def error(self, message: str):
        raise InputError(f"{message}; --help lists the options")


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """The `type` of an option that is a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]}: give a whole number from {least} to {most}")
        return number

    return read


def real(least: float = -math.inf, most: float = math.inf) -> Callable[[str], float]:
    """The `type` of an option that is a finite number from `least` to `most`."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and least <= number <= most):
            span = "" if math.isinf(most) else f" from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text[:40]}: give a finite number{span}")
        return number

    return read


def parser(module: str, description: str) -> Parser:
    """The parser of `python -m module`; `description` is shown as it is written."""
    return Parser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main: Callable[[list[str]], Any], arguments: list[str] | None = None):
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
