"""Pictures of a folder, each with a text in a file beside it: cat.jpg and cat.txt, as img2dataset leaves them."""

from pathlib import Path

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import pictures, sources
from diffusion_jax.data.sources import Mapped

ENDING = ".txt"
BYTES = 64 * 1024  # of one text


def captioned(
    path: str | Path, size: int | tuple[int, int], channels: int = 3, shrink: pictures.Shrink = pictures.fit
) -> Mapped:
    """The pictures of a folder and of those below it (`sources.folder`), each with its text.

    Args:
      path: the folder. Beside each picture lies its text, of the same name with the ending .txt, in UTF-8; it is read
        as one line.
      size: the side of a square, or (height, width).
      channels: 3 (RGB) or 1 (grey).
      shrink: as of `sources.pictures_of`.

    Returns:
      A source of {"image": uint8 [H, W, channels], "text": str}.

    Raises:
      InputError: as of `sources.folder`; a picture without a text; or, when it is read, a text that is empty, not
        UTF-8 or of more than 64 KiB.
    """
    found = sources.image_files(path, beside=(ENDING,))
    texts = [file.with_suffix(ENDING) for file in found]
    missing = [text for text in texts if not text.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(texts)} pictures have no text; the first lacks {missing[0]}. Write it, or take "
            "the picture away"
        )
    images = sources.pictures_of(found, size, channels, shrink)
    return Mapped(range(len(texts)), lambda index: {**images[index], "text": _read(texts[index])})


def _read(path: Path) -> str:
    try:
        text = " ".join(files.read(path, BYTES).decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it") from error
    if not text:
        raise InputError(f"{path} holds no text; say what the picture shows")
    return text
