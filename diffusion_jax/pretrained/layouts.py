"""How PyTorch lays out a weight, and how we do: pairs of functions that rearrange NumPy arrays, one the inverse of
the other.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """One of their arrays and those of ours that are made of it.

    Attributes:
      read: `theirs -> tuple of ours`.
      write: `*ours -> theirs`.
    """

    read: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    write: Callable[..., np.ndarray]


same = Layout(lambda theirs: (theirs,), lambda ours: ours)
# [out, in] and [in, out]
linear = Layout(lambda theirs: (theirs.T,), lambda ours: ours.T)
# [out, in, height, width] and [height, width, in, out]
conv = Layout(lambda theirs: (theirs.transpose(2, 3, 1, 0),), lambda ours: ours.transpose(3, 2, 0, 1))
# [out, in, 1, 1] or [out, in, 1], and [in, out]: what is a convolution of one pixel there is a dense layer here
pointwise = Layout(lambda theirs: (theirs[:, :, 0, 0].T,), lambda ours: ours.T[:, :, None, None])
pointwise_1d = Layout(lambda theirs: (theirs[:, :, 0].T,), lambda ours: ours.T[:, :, None])


def merged(num: int, inner: Layout, heads: int = 1) -> Layout:
    """`num` of ours, of equal shape, in one of theirs, whose first axis runs over (heads, num, features of a head).

    With one head that is one after the other: query, key, value. OpenAI's older attention has them head by head.
    """

    def read(theirs):
        parts = theirs.reshape(heads, num, -1, *theirs.shape[1:])
        return tuple(inner.read(parts[:, i].reshape(-1, *theirs.shape[1:]))[0] for i in range(num))

    def write(*ours):
        arrays = [inner.write(array) for array in ours]
        rest = arrays[0].shape[1:]
        parts = [array.reshape(heads, len(array) // heads, *rest) for array in arrays]
        return np.stack(parts, axis=1).reshape(-1, *rest)

    return Layout(read, write)
