"""An array that is still in its file."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError


class Stored(NamedTuple):
    """An array in a file, read by `np.asarray(stored)` and not before; its shape and dtype are known without.

    A file is only read, never mapped into memory: mapped pages would count as memory beside the arrays made of them.

    Attributes:
      path: of the file.
      dtype: of the array.
      shape: of the array.
      offset: of its first entry, in bytes from the start of the file.
      strides: of each axis in entries, not below 0; None for an array without gaps, last axis fastest.
    """

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None

    @property
    def span(self) -> int:
        """Entries from the first to the last, gaps between them included."""
        if 0 in self.shape:
            return 0
        if self.strides is None:
            return math.prod(self.shape)
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        size = self.span * self.dtype.itemsize
        with files.reading(self.path) as file:
            data = np.fromfile(file, np.uint8, size, offset=self.offset)
        if len(data) < size:
            raise InputError(f"{self.path} became shorter while it was read; leave it alone, or read a copy")
        array = data.view(self.dtype)
        if self.strides is None or not size:
            array = array.reshape(self.shape)
        else:
            # An axis of one entry may come with any stride; numpy should not multiply it.
            steps = [0 if n == 1 else s * self.dtype.itemsize for n, s in zip(self.shape, self.strides, strict=True)]
            array = np.lib.stride_tricks.as_strided(array, self.shape, steps)
        return array if dtype is None else array.astype(dtype, copy=False)


def check_shape(shape: Any, what: str) -> tuple[int, ...]:
    """`shape` as a tuple, or `InputError` unless an array may have it; `what` begins the message.

    NumPy counts the bytes of an array as if no axis were empty: of eight each, fewer than 2^63.
    """
    shape = check_sizes(shape, what)
    if 0 in shape and math.prod(size or 1 for size in shape) >= 2**60:
        raise InputError(f"{what} is damaged: no array can have the shape {shape}")
    return shape


def check_sizes(sizes: Any, what: str) -> tuple[int, ...]:
    """`sizes` as a tuple, or `InputError` unless it holds a few integers from 0; `what` begins the message."""
    fit = isinstance(sizes, tuple | list) and len(sizes) <= 32
    if not fit or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise InputError(f"{what} is damaged: a shape or stride in it is not a list of sizes")
    return tuple(sizes)


def show(number: int) -> str:
    """An integer of a file, for a message: Python does not write those of thousands of digits."""
    return str(number) if abs(number) < 2**64 else "over 2^64"
