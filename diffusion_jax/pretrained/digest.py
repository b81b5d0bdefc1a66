"""Is a file the one that it should be?"""

import hashlib
from pathlib import Path

from diffusion_jax.errors import InputError


def check(path, sha256: str, remedy: str) -> None:
    """Raise `InputError`, which ends in `remedy`, unless the SHA-256 of the file is `sha256`, in hexadecimal."""
    try:
        with open(Path(path), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}); {remedy}") from error
    if found != sha256:
        raise InputError(f"{path} has SHA-256 {found}, not {sha256}; {remedy}")
