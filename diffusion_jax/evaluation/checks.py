"""What every metric asks of features, in one line to the person who gave others."""

import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError

ROWS = 1000  # looked at a time, so that what is on disk stays there


def features(array: ArrayLike, what: str = "features", least: int = 2, first: int = 0) -> np.ndarray:
    """`array` as NumPy numbers [N, D], of its own type; `first` is the number of its first row, for messages.

    Raises:
      InputError: it is no matrix of real numbers, has fewer than `least` rows, or is not finite.
    """
    array = np.asarray(array)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
        raise InputError(f"{what} of {array.dtype} {list(array.shape)}; give real numbers [N, D], a row an image")
    if len(array) < least:
        raise InputError(f"{what} of {len(array)} images; at least {least} are needed")
    for start in range(0, len(array) if array.dtype.kind == "f" else 0, ROWS):
        finite = np.isfinite(array[start : start + ROWS]).all(axis=1)
        if not finite.all():
            row = first + start + int(np.argmin(finite))
            raise InputError(f"{what} are not finite in row {row}; look at that image")
    return array


def pair(real: ArrayLike, generated: ArrayLike, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both as by `features`.

    Raises:
      InputError: as of `features`, or they differ in D.
    """
    real, generated = features(real, "real features", least), features(generated, "generated features", least)
    same_size(real.shape[1], generated.shape[1])
    return real, generated


def same_size(a: int, b: int) -> None:
    """Raise `InputError` unless features of `a` and `b` dimensions are alike."""
    if a != b:
        raise InputError(f"features of {a} and of {b} dimensions; extract both sets with one extractor")
