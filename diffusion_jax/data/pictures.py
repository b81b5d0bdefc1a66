"""From an encoded picture to uint8 pixels of the wanted size."""

from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from diffusion_jax.errors import InputError

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's name for them


@contextmanager
def opened(file, name):
    """The picture in `file` (a path or a binary file) with its pixels not read yet.

    Raises:
      InputError: `name` cannot be opened, or its pixels not be read in the body; or is deeper than 8 bits.
    """
    try:
        with Image.open(file) as picture:
            # Pillow would clip these to 255 without a word, and most of the picture would be white.
            if picture.mode.startswith(("I", "F")):
                raise InputError(f"image {name} has more than 8 bits a channel; convert it to 8 bits")
            yield picture
    except (OSError, SyntaxError) as error:  # SyntaxError is Pillow's word for a broken PNG
        reason = getattr(error, "strerror", None) or "damaged, or not an image"
        raise InputError(f"cannot read image {name} ({reason}); replace or remove it") from error


def decode(file, name, channels):
    """Reads a picture, upright by its EXIF orientation, as a Pillow image in RGB (3 channels) or grey (1).

    Transparency is dropped. Errors are those of `opened`.
    """
    with opened(file, name) as picture:
        return ImageOps.exif_transpose(picture).convert(MODES[channels])


def fit(picture, size, name):
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


def check_size(found, size, name):
    """Refuses a picture of `found` = (height, width) that is smaller than `size`, either way."""
    if found[0] < size[0] or found[1] < size[1]:
        found, size = "{} x {}".format(*found), "{} x {}".format(*size)
        raise InputError(f"image {name} is {found}, smaller than {size}; remove it or lower the size")


def pixels(picture):
    """A Pillow image in RGB or grey as uint8 [H, W, 3] or [H, W, 1]."""
    array = np.asarray(picture)
    return array.reshape(*array.shape[:2], -1)
