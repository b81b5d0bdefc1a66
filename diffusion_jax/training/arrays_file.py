"""Files of arrays that a run writes beside its checkpoints."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.pretrained.formats import safetensors_file


def write(path: Path, arrays: Mapping[str, np.ndarray]):
    """Write a file of safetensors, whole or not at all.

    Raises:
      RunError: it cannot be written (a full disk).
    """
    shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    try:
        safetensors_file.write(path, shapes, arrays.values())
    except InputError as error:
        reason = error.__cause__ or error
        raise RunError(f"cannot write {path} ({reason}); free disk space and give the same command again") from error
