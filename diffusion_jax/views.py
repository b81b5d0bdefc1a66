"""How samples are kept and shown. Samples are NumPy pytrees that lead with their number N, as `sample_fn` gave them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from diffusion_jax import images


class View(NamedTuple):
    """How the samples of one kind of data are kept and shown.

    Attributes:
      files: `samples -> {file name: save(binary file)}`, what sampling writes; "samples.npz" is the first.
      picture: `samples -> uint8 [H, W, C]`, one picture for a person.
      strip: `frames -> uint8 [H, W, C]`, a few moments of the way side by side; frames lead with time, [F, N, ...].
      filmed: how many samples a film shows.
    """

    files: Callable
    picture: Callable
    strip: Callable
    filmed: int = 16


SHOWN = 100  # images in a grid


def pictures() -> View:
    """Images, float [N, H, W, C] in [-1, 1]."""
    return View(
        files=lambda samples: {
            "samples.npz": lambda file: np.savez_compressed(file, images=images.to_uint8(samples))
        },
        picture=lambda samples: images.grid(images.to_uint8(samples[:SHOWN])),
        strip=lambda frames: images.strip(images.to_uint8(frames[:, :8])),
    )
