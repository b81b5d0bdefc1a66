"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

from diffusion_jax.errors import InputError


def write(path, save: Callable):
    """Call `save(file)` on a temporary binary file beside `path`, and rename it: no one ever sees half a file.

    Raises:
      InputError: the file cannot be written there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                save(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a path you may write to") from error
