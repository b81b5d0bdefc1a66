"""From an encoded picture to uint8 pixels of the wanted size."""

import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's name for them
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # others of Pillow's start programs, such as Ghostscript
# `(picture, (height, width), name) -> picture` of that size, or covering it.
Shrink: TypeAlias = Callable[[Image.Image, tuple[int, int], Any], Image.Image]
LARGEST = 50_000_000  # pixels: of some kinds each takes 16 bytes while it is read
DEEP = re.compile(r";(16|32)[BLNSF]")  # in Pillow's names of how more than 8 bits a channel lie in a file

# Pillow warns of pictures that are above its bound, and here they are refused below it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@contextmanager
def opened(file: BinaryIO, name: Any):
    """The picture in a binary file with its pixels not read yet; of several pages or frames, the first.

    Raises:
      InputError: `name` cannot be opened, or its pixels not be read in the body; has more than 8 bits a channel, or
        more than `LARGEST` pixels.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            # Of these Pillow would clip grey to 255 without a word, and cut the lower bits of colours off.
            if picture.mode.startswith(("I", "F")) or any(DEEP.search(str(tile[3])) for tile in picture.tile):
                raise InputError(f"image {name} has more than 8 bits a channel; convert it to 8 bits")
            if picture.width * picture.height > LARGEST:
                found = f"{picture.height} x {picture.width}"
                raise InputError(f"image {name} is {found}, over {LARGEST} pixels; shrink or remove it")
            yield picture
    except InputError:
        raise
    except (OSError, SyntaxError) as error:  # SyntaxError is Pillow's word for a broken PNG
        reason = getattr(error, "strerror", None) or "damaged, or not an image"
        raise InputError(f"cannot read image {name} ({reason}); replace or remove it") from error
    except Exception as error:  # decoders have no type of their own: from struct.error to RuntimeError
        reason = (str(error).splitlines() or [""])[0][:100] or type(error).__name__
        raise InputError(f"cannot read image {name} ({reason}); replace or remove it") from error


@contextmanager
def opened_file(path: str | Path):
    """`opened`, of a regular file."""
    with files.reading(path) as file, opened(file, path) as picture:
        yield picture


def decode(opening: AbstractContextManager[Image.Image], channels: int):
    """Reads a picture, upright by its EXIF orientation, as a Pillow image in RGB (3 channels) or grey (1).

    Transparency is dropped. `opening` is `opened(...)` or `opened_file(...)`, whose errors are raised.
    """
    with opening as picture:
        # In place where nothing has to change: a large picture should not be in memory three times.
        ImageOps.exif_transpose(picture, in_place=True)
        picture.load()
        return picture if picture.mode == MODES[channels] else picture.convert(MODES[channels])


def fit(picture: Image.Image, size: tuple[int, int], name: Any):
    """Cuts the centre out to the aspect ratio of `size`, then shrinks it with antialiasing (Lanczos).

    The cut is on whole pixels: a picture that needs no shrinking keeps its pixels exactly.

    Args:
      picture: a Pillow image.
      size: (height, width) of the result.
      name: what to call the picture.

    Raises:
      InputError: the picture is smaller than `size`; enlarging would teach a model to blur.
    """
    check_size((picture.height, picture.width), size, name)
    height, width = size
    scale = min(picture.height / height, picture.width / width)
    cut_height, cut_width = round(height * scale), round(width * scale)
    top, left = (picture.height - cut_height) // 2, (picture.width - cut_width) // 2
    box = (left, top, left + cut_width, top + cut_height)
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=box)


def cover(picture: Image.Image, size: tuple[int, int], name: Any):
    """Shrinks the whole picture with antialiasing (bicubic) until it just covers `size`: of a square, the short side.

    The other side is rounded down. Arguments and errors as of `fit`.
    """
    check_size((picture.height, picture.width), size, name)
    height, width = size
    if height * picture.width >= width * picture.height:
        wide = height * picture.width // picture.height
        return picture.resize((wide, height), Image.Resampling.BICUBIC)
    return picture.resize((width, width * picture.height // picture.width), Image.Resampling.BICUBIC)


def check_size(found: Sequence[int], size: Sequence[int], name: Any) -> None:
    """Refuses a picture of `found` = (height, width) that is smaller than `size`, either way."""
    if found[0] < size[0] or found[1] < size[1]:
        has, least = "{} x {}".format(*found), "{} x {}".format(*size)
        raise InputError(f"image {name} is {has}, smaller than {least}; remove it or lower the size")


def uncut(path: str | Path) -> np.ndarray:
    """The pixels of a picture as it is, uint8 [H, W, 3]; `InputError` where it cannot be read."""
    return pixels(decode(opened_file(path), 3))


def of_channels(colours: np.ndarray, channels: int, name: Any) -> np.ndarray:
    """`colours` [H, W, 3] as [H, W, channels]; `InputError` where 1 is asked of the picture `name` in colours."""
    if channels == 1 and not (colours == colours[..., :1]).all():
        raise InputError(f"image {name} has colours, and a grey one is needed; convert it")
    return colours[..., :channels]


def exactly(path: str | Path, size: Sequence[int], channels: int) -> np.ndarray:
    """The pixels of a picture, uint8 [*size, channels]; `InputError` where it is of another size or has colours."""
    colours = uncut(path)
    if colours.shape[:2] != tuple(size):
        has, wanted = "{} x {}".format(*colours.shape), "{} x {}".format(*size)
        raise InputError(f"image {path} is {has}, and {wanted} is needed; cut or resize it")
    return of_channels(colours, channels, path)


def pixels(picture: Image.Image):
    """A Pillow image in RGB or grey as uint8 [H, W, 3] or [H, W, 1]."""
    array = np.asarray(picture)
    return array.reshape(*array.shape[:2], -1)
