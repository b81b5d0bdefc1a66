"""Is a file the one that it should be?"""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import cast

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError


def check(path: str | Path, sha256: str, remedy: str) -> None:
    """Raise `InputError`, which ends in `remedy`, unless the SHA-256 of the file is `sha256`, in hexadecimal."""
    try:
        with files.reading(path) as file:
            found = hashlib.file_digest(cast(BytesIO, file), "sha256").hexdigest()
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from error
    if found != sha256:
        raise InputError(f"{path} has SHA-256 {found}, not {sha256}; {remedy}")
