"""Small data sets with something to see, made on the spot: points on a spiral, images as tokens.

As in `sources`, but what an example holds is not a uint8 image.
"""

import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Examples
from diffusion_jax.data.sources import Mapped

HALF_TURNS = 3  # of the swiss roll: its labels
_FIRST, _LAST = 1.5 * np.pi, 4.5 * np.pi  # angles between which it winds
_SCALE = 7.0  # of scikit-learn's units in one of ours: unit variance, all but a few per cent
_NOISE = 0.35  # in scikit-learn's


def swiss_roll(num: int = 10_000, seed: int = 0):
    """Points about a spiral of one and a half turns, seen from the side of scikit-learn's `make_swiss_roll`.

    The curve is `spiral` at angles uniform in 1.5 pi to 4.5 pi; about it lies Gaussian noise of deviation 0.05. So
    each coordinate has about unit variance, and every point lies within 2.5 of the middle either way. Neighbouring
    turns are 0.9 apart.

    Args:
      num: how many points.
      seed: of the points; another seed gives other points of the same law.

    Returns:
      A source of {"point": float32 [2], "label": int32 []}, the label the half turn that a point lies on, 0 (the
      innermost) to 2.

    Raises:
      InputError: `num` is below 1.
    """
    from sklearn.datasets import make_swiss_roll  # scikit-learn takes a second to import

    if num < 1:
        raise InputError(f"a swiss roll of {num} points; give at least 1")
    points, angle = make_swiss_roll(num, noise=_NOISE, random_state=seed)
    plane, label = _framed(points[:, [0, 2]]).astype(np.float32), half_turn(angle)
    return Mapped(range(num), lambda i: {"point": plane[i], "label": label[i]})


def swiss_rolls(split: str = "train"):
    """Two swiss rolls of 10,000 points each as a data set: the "train" split has seed 0, the "test" split seed 1."""
    seeds = {"train": 0, "test": 1}
    if split not in seeds:
        raise InputError(f"the swiss rolls have no split {split!r}; choose one of {', '.join(seeds)}")
    return swiss_roll(seed=seeds[split])


def spiral(angle: ArrayLike) -> np.ndarray:
    """The swiss roll's curve, angle * (cos(angle), sin(angle)) / 7 shifted to mean 0: [...] to float64 [..., 2]."""
    angle = np.asarray(angle, np.float64)
    return _framed(angle[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1))


def angles(num: int) -> np.ndarray:
    """Even angles along the swiss roll, from its inner end to its outer: float64 [num]."""
    return np.linspace(_FIRST, _LAST, num)


def half_turn(angle: ArrayLike) -> np.ndarray:
    """The half turn that an angle of the roll lies on, 0 (innermost) to `HALF_TURNS` - 1: [...] to int32 [...]."""
    number = HALF_TURNS * (np.asarray(angle) - _FIRST) / (_LAST - _FIRST)
    return np.clip(number.astype(np.int32), 0, HALF_TURNS - 1)


def _framed(points: np.ndarray) -> np.ndarray:
    # The law's own mean, not that of some points, so that all seeds share one frame. By parts: over 1.5 pi to
    # 4.5 pi, u cos(u) integrates to [cos(u) + u sin(u)] = 6 pi, and u sin(u) to [sin(u) - u cos(u)] = 2.
    return (points - np.array([6 * np.pi, 2]) / (3 * np.pi)) / _SCALE


def levels(source: Examples, num: int = 17):
    """Images as tokens: each channel of each pixel rounded to one of `num` even levels of grey.

    The handwritten digits have 17 levels and lose nothing.

    Args:
      source: of {"image": uint8 [H, W, C], ...}.
      num: how many levels, 2 to 256.

    Returns:
      A source of {"tokens": int32 [H, W, C] in 0..num - 1, ...}; the other features are kept.

    Raises:
      InputError: `num` is out of range.
    """
    if not 2 <= num <= 256:
        raise InputError(f"{num} levels of grey are not possible; give 2 to 256")

    def read(record):
        others = {name: feature for name, feature in record.items() if name != "image"}
        return {"tokens": to_levels(record["image"], num)} | others

    return Mapped(source, read)


def to_levels(image: np.ndarray, num: int = 17):
    """uint8 [...] as the nearest levels in 0..num - 1, int32 [...]."""
    return np.round(image * ((num - 1) / 255)).astype(np.int32)


def to_uint8(tokens: ArrayLike, num: int = 17):
    """Levels in 0..num - 1 as uint8 in 0..255: the way back from `levels`, [...] to [...]. A mask turns white."""
    return np.clip(np.round(np.asarray(tokens) * (255 / (num - 1))), 0, 255).astype(np.uint8)
