"""The texts that samples are told, from the command line and from files of them."""

import argparse
import re
from functools import cache
from pathlib import Path

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import MEBIBYTE
from diffusion_jax.pipelines.prompts import NEGATIVE, PROMPT

LARGEST = 64 * MEBIBYTE  # of a file of texts
LONGEST = 10_000  # characters of a text: encoders read some 77 pieces


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of texts."""
    group = parser.add_argument_group("for models of texts")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--prompt", nargs="+", metavar="TEXT", help='what to draw, "a photo of a cat"; several in turn')
    one.add_argument("--prompts", type=Path, metavar="FILE", help="texts, one a line: sample i is of line i")
    group.add_argument("--negative", nargs="+", metavar="TEXT", help="what not to draw; one for all, or in turn")


def given(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """The texts by their names among what samples are told: arrays of objects, each a str.

    Raises:
      InputError: a text is empty of everything or too long, or the file cannot be read or has no lines.
    """
    prompts = _lines(options.prompts) if options.prompts else options.prompt
    found = {}
    for name, texts in ((PROMPT, prompts), (NEGATIVE, options.negative)):
        if texts:
            for text in texts:
                _check(text, name)
            found[name] = np.array(texts, dtype=object)
    return found


def count(options: argparse.Namespace, usual: int) -> int:
    """How many samples there are where nobody says it: one of each text, or `usual`."""
    return len(given(options).get(PROMPT, ())) or usual


def tag(texts: list[str] | None) -> str | None:
    """Texts as a part of a folder's name."""
    if not texts:
        return None
    first = re.sub(r"[^a-z0-9]+", "-", texts[0].lower()[:40]).strip("-") or "text"
    return first + (f"-{len(texts)}" if len(texts) > 1 else "")


@cache
def _lines(path: Path) -> list[str]:
    """Read once: several parts of a command ask for them."""
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"--prompts {path} is larger than {LARGEST // MEBIBYTE} MiB; give it in parts")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"--prompts {path} is no text in UTF-8; save it as such") from error
    except OSError as error:
        raise InputError(f"--prompts {path} cannot be read: {error.strerror}") from error
    lines = text.split("\n")
    if lines and not lines[-1].strip():
        lines.pop()  # the file ends with its last line
    if not lines:
        raise InputError(f"--prompts {path} has no lines; write one text a line")
    return [line.removesuffix("\r") for line in lines]


def _check(text: str, name: str) -> None:
    if len(text) > LONGEST:
        raise InputError(f"--{name} {text[:40]!r}... has {len(text)} characters; give at most {LONGEST}")
    if "\0" in text:
        raise InputError(f"--{name} {text[:40]!r} has a NUL in it; leave that out")
