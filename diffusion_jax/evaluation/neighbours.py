"""Nearest neighbours in features: precision and recall, density and coverage, and a guard against memorising.

In NumPy float64, in blocks: memory grows with the number of images, never with its square. Squared distances are
|x|^2 - 2 x.y + |y|^2 of features moved to one of their own; what is lost in that to rounding, distances under about
1e-6 of the features' norms, counts as 0, so that copies are copies.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.evaluation import checks


class PrecisionRecall(NamedTuple):
    """Both from 0 to 1.

    Attributes:
      precision: the share of generated images that lie among the real ones.
      recall: the share of real images that lie among the generated ones.
    """

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Of generated images about real ones.

    Attributes:
      density: in how many real images' neighbourhoods a generated one lies, over k: about 1 where both are drawn
        alike; it may be more.
      coverage: the share of real images with a generated one in their neighbourhood, from 0 to 1.
    """

    density: float
    coverage: float


class Nearest(NamedTuple):
    """The nearest known image of each.

    Attributes:
      index: int64 [N], which; the first of equals.
      distance: float64 [N], Euclidean.
    """

    index: np.ndarray  # type: ignore[assignment]  # tuples have a method of the name
    distance: np.ndarray


def precision_recall(real: ArrayLike, generated: ArrayLike, k: int = 3, block: int = 1000) -> PrecisionRecall:
    """Improved precision and recall: Kynkäänniemi et al. 2019, equations 1 and 2.

    A set's manifold is the union of balls about its features, each reaching to the k-th nearest other (closed: a
    distance that equals the radius is inside). Both fall and rise with the numbers of images: compare equal ones.

    Args:
      real, generated: features [N, D] and [M, D].
      k: which neighbour.
      block: how many distances are held at a time, squared; the result does not depend on it.

    Raises:
      InputError: not more than k images in a set, sets that differ in D, or values that are not finite.
    """
    x, y = _moved(real, generated, k)
    real_radii, generated_radii = _radii(x, k, block), _radii(y, k, block)
    precise, recalled = np.zeros(len(y), bool), np.zeros(len(x), bool)
    for rows, columns, squared in _blocks(y, x, block):
        precise[rows] |= (squared <= real_radii[columns]).any(axis=1)
        recalled[columns] |= (squared <= generated_radii[rows, None]).any(axis=0)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(real: ArrayLike, generated: ArrayLike, k: int = 5, block: int = 1000) -> DensityCoverage:
    """Density and coverage: Naeem et al. 2020, equations 6 and 9.

    Only the real images have neighbourhoods here, which an outlier among the generated ones cannot widen. Arguments
    and errors as of `precision_recall`; of the generated images 2 suffice.
    """
    x, y = _moved(real, generated, k, least_generated=2)
    radii = _radii(x, k, block)
    inside, covered = 0, np.zeros(len(x), bool)
    for _, columns, squared in _blocks(y, x, block):
        within = squared <= radii[columns]
        inside += int(within.sum())
        covered[columns] |= within.any(axis=0)
    return DensityCoverage(inside / (k * len(y)), float(covered.mean()))


def nearest(images: ArrayLike, known: ArrayLike, block: int = 1000) -> Nearest:
    """For each of `images`, the nearest of `known`.

    Args:
      images: numbers [N, ...], such as uint8 pixels or features.
      known: numbers [M, ...] of the same inner shape.
      block: as of `precision_recall`.

    Raises:
      InputError: no images, shapes that differ, or values that are not finite.
    """
    images, known = np.asarray(images), np.asarray(known)
    if images.ndim < 2 or images.shape[1:] != known.shape[1:]:
        raise InputError(f"images {list(images.shape)} and known ones {list(known.shape)}; all must be of one shape")
    size = math.prod(known.shape[1:])
    x = checks.features(images.reshape(len(images), size), "images", least=1)
    y = checks.features(known.reshape(len(known), size), "known images", least=1)
    origin = y[:1].astype(np.float64)
    index, best = np.zeros(len(x), np.int64), np.full(len(x), np.inf)
    for rows, columns, squared in _blocks(_Points(x, origin), _Points(y, origin), block):
        found = squared.argmin(axis=1)
        value = squared[np.arange(len(found)), found]
        closer = value < best[rows]
        index[rows] = np.where(closer, columns.start + found, index[rows])
        best[rows] = np.where(closer, value, best[rows])
    return Nearest(index, np.sqrt(best))


def memorisation(images: ArrayLike, train: ArrayLike, test: ArrayLike, block: int = 1000) -> float:
    """Mean distance to the nearest training image, over that of test images: near 1 is well, near 0 is reciting.

    None of the other metrics can tell a model that recites its training set from a good one. Distances are in
    whatever the images are given as: pixels find copies; features also find what is all but a copy.

    Args:
      images, train, test: as of `nearest`.

    Raises:
      InputError: as of `nearest`; or every test image is a training image.
    """
    scale = nearest(test, train, block).distance.mean()
    if scale == 0:
        raise InputError("every test image is a training image; give test images that are not")
    return float(nearest(images, train, block).distance.mean() / scale)


@dataclasses.dataclass(frozen=True)
class _Points:
    """Points [N, D], and where 0 shall be, [1, D]: as blocks of float64 with their squared norms."""

    points: np.ndarray
    origin: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def block(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        x = self.points[rows].astype(np.float64) - self.origin
        return x, np.einsum("nd,nd->n", x, x)


def _moved(real, generated, k: int, least_generated: int | None = None) -> tuple[_Points, _Points]:
    """Both sets about one of the real points: far from 0 the products would cancel, and whole numbers stay whole."""
    real, generated = checks.pair(real, generated)
    if k < 1:
        raise InputError(f"k = {k}; give 1 or more")
    for what, array, least in (("real", real, k + 1), ("generated", generated, least_generated or k + 1)):
        if len(array) < least:
            raise InputError(f"{len(array)} {what} images and k = {k}; at least {least} are needed")
    origin = real[:1].astype(np.float64)
    return _Points(real, origin), _Points(generated, origin)


def _blocks(x: _Points, y: _Points, block: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Slices of rows of x, slices of rows of y, and the squared distances between them."""
    # Twice the error bound of the products' sums.
    rounding = 4 * x.points.shape[1] * np.finfo(np.float64).eps
    for rows in _slices(len(x), block):
        a, a_norms = x.block(rows)
        for columns in _slices(len(y), block):
            b, b_norms = y.block(columns)
            norms = a_norms[:, None] + b_norms
            squared = norms - 2.0 * (a @ b.T)
            yield rows, columns, np.where(squared <= rounding * norms, 0.0, squared)


def _radii(x: _Points, k: int, block: int) -> np.ndarray:
    """Squared distance of each point to the k-th nearest other, [N]."""
    nearest_k = np.full((len(x), k), np.inf)
    for rows, columns, squared in _blocks(x, x, block):
        if rows == columns:
            np.fill_diagonal(squared, np.inf)
        candidates = np.concatenate([nearest_k[rows], squared], axis=1)
        nearest_k[rows] = np.partition(candidates, k - 1, axis=1)[:, :k]
    return nearest_k.max(axis=1)


def _slices(count: int, block: int) -> Iterator[slice]:
    if block < 1:
        raise InputError(f"blocks of {block}; give 1 or more")
    return (slice(begin, min(begin + block, count)) for begin in range(0, count, block))
