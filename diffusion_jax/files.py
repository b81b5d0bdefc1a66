"""Files that are written whole or not at all."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from diffusion_jax.errors import InputError

unfinished: set[Path] = set()  # temporary files of this process, which one that ends at once removes


def remove_unfinished(folder: Path, pattern: str):
    """Remove what killed processes left of files in `folder` that match `pattern`, where no one else writes such."""
    for path in folder.glob(f".{pattern}.*"):
        if re.fullmatch(r"\d+", path.suffix[1:]):
            path.unlink(missing_ok=True)


def write(path, save: Callable):
    """Call `save(file)` on a temporary binary file beside `path`, and rename it: no one ever sees half a file.

    Raises:
      InputError: the file cannot be written there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                save(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            unfinished.discard(temporary)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a path you may write to") from error
