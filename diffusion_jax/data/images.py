"""Pixels to numbers and back, and pictures for people: grids, strips, PNG files and films."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from diffusion_jax.core import files
from diffusion_jax.core.errors import NotFiniteError

_LEGIBLE = 64  # pixels: smaller images are enlarged about this far for a person to see


def to_float(image: Any):
    """uint8 [...] in 0..255 to float32 [...] in [-1, 1]. NumPy or JAX arrays; -1 and 1 are met exactly."""
    return image.astype(np.float32) / 127.5 - 1.0


def to_uint8(image: ArrayLike):
    """Float [...] in [-1, 1] to the nearest uint8 [...] in 0..255 (NumPy); values outside are clipped.

    The inverse of `to_float` on all 256 levels.

    Raises:
      NotFiniteError: a value is not finite: no pixel stands for it.
    """
    levels = (np.asarray(image, np.float32) + 1.0) * 127.5
    wrong = np.count_nonzero(~np.isfinite(levels))
    if wrong:
        raise NotFiniteError(f"{wrong} of {levels.size} values of an image are not finite; nothing is written of it")
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def grid(images: np.ndarray, columns: int | None = None, padding: int = 2, scale: int | None = None):
    """Lays images out row by row on white, as one image.

    Args:
      images: uint8 [N, H, W, C].
      columns: images in a row; by default the layout is about square.
      padding: white pixels around each image.
      scale: whole factor of enlargement (each pixel becomes a block); by default small images grow to 64.

    Returns:
      uint8 [rows * (scale * H + padding) + padding, columns * (scale * W + padding) + padding, C].
    """
    images = np.asarray(images)
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    scale = scale or max(1, _LEGIBLE // max(height, width))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = images.shape[1] + padding, images.shape[2] + padding
    canvas = np.full((rows * height + padding, columns * width + padding, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height + padding, i % columns * width + padding
        canvas[top : top + height - padding, left : left + width - padding] = image
    return canvas


def strip(frames: np.ndarray, columns: int = 8, padding: int = 2, scale: int | None = None):
    """A trajectory in one picture: a row for each example, time running from left to right.

    Args:
      frames: uint8 [F, N, H, W, C], the first axis is time.
      columns: how many times to show, evenly spaced, the first and the last among them.

    Returns:
      One uint8 image, laid out as `grid` does.
    """
    frames = np.asarray(frames)
    shown = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
    by_example = frames[shown].swapaxes(0, 1)
    return grid(by_example.reshape(-1, *frames.shape[2:]), columns=len(shown), padding=padding, scale=scale)


def save_png(path: str | Path, image: np.ndarray):
    """Writes uint8 [H, W, 1] (grey) or [H, W, 3] (RGB) as a PNG file, whole or not at all.

    Raises:
      InputError: the file cannot be written there.
    """
    files.write(path, lambda file: to_pil(image).save(file, format="PNG"))


def save_film(path: str | Path, pictures: Iterable[np.ndarray], seconds: float = 3.0, hold: float = 1.5):
    """Writes an animated GIF of `pictures`, one after another; the last one stays.

    Args:
      pictures: uint8 [H, W, C] each, all of one size, with C = 1 or 3.
      seconds, hold: how long all frames run, and how much longer the last one stays before the film repeats.

    Raises:
      InputError: the file cannot be written there.
    """
    frames = [to_pil(picture) for picture in pictures]
    # GIF counts in hundredths of a second, and viewers slow down what is shorter than two of them.
    each = max(20, round(100 * seconds / len(frames)) * 10)
    durations = [each] * (len(frames) - 1) + [each + round(1000 * hold)]
    first, *rest = frames
    options: dict[str, Any] = dict(format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    files.write(path, lambda file: first.save(file, **options))


def to_pil(image: np.ndarray) -> Image.Image:
    """uint8 [H, W, 1] or [H, W, 3] as a `PIL.Image.Image`."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
