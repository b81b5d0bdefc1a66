"""Pictures that networks are told of, beside texts and numbers: from the command line, read and checked."""

import argparse
from pathlib import Path

import numpy as np

from diffusion_jax.data import pictures
from diffusion_jax.pipelines.likes import LIKE

HINT = "hint"
SHOWN = {
    HINT: "for a ControlNet: pictures of edges, depths or poses, say, of the samples' size; each in turn",
    LIKE: "pictures, of any size, of which the samples are variations; each in turn",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of pictures that networks are told of."""
    group = parser.add_argument_group("for models that are told of pictures")
    for name, about in SHOWN.items():
        group.add_argument(f"--{name}", type=Path, nargs="+", metavar="PICTURE", help=about)


def paths(options: argparse.Namespace) -> dict[str, list[Path]]:
    """Option -> the pictures that it names."""
    return {name: named for name in SHOWN if (named := getattr(options, name))}


def given(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """The pictures by their names among what samples are told.

    Hints are float32 [N, H, W, 3] in [0, 1]. Of "like" it is an array of objects, each uint8 [H, W, 3].

    Raises:
      InputError: a picture cannot be read, or hints are of different sizes.
    """
    found: dict[str, np.ndarray] = {}
    named = paths(options)
    if HINT in named:
        first, *others = named[HINT]
        hints = [pictures.uncut(first)]
        hints += [pictures.exactly(path, hints[0].shape[:2], 3) for path in others]
        found[HINT] = np.stack(hints).astype(np.float32) / 255
    if LIKE in named:
        found[LIKE] = np.empty(len(named[LIKE]), object)
        for number, path in enumerate(named[LIKE]):
            found[LIKE][number] = pictures.uncut(path)
    return found
