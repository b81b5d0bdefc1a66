"""Fréchet distance between Gaussians fitted to features: FID, sFID, or of any extractor (Heusel et al. 2017).

Everything is NumPy float64 on the host. Moments are gathered batch by batch, so memory does not grow with the number
of images. The distance falls with that number, often by more than models differ: compare equal counts only, and show
them.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.evaluation import checks

ROUNDING = 1e-10  # of the largest eigenvalue: what a covariance's smallest may be below 0


class Moments(NamedTuple):
    """Of a set of features.

    Attributes:
      count: how many images.
      mean: float64 [D].
      scatter: float64 [D, D], the sum of (x - mean)(x - mean)^T.
    """

    count: int  # type: ignore[assignment]  # tuples have a method of the name
    mean: np.ndarray
    scatter: np.ndarray

    def merge(self, other: "Moments") -> "Moments":
        """Those of both sets together: Chan, Golub & LeVeque 1983, equation 2.1, which does not cancel.

        Raises:
          InputError: the features differ in D.
        """
        checks.same_size(len(self.mean), len(other.mean))
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = np.outer(shift, shift * (self.count * other.count / count))
        return Moments(count, mean, self.scatter + other.scatter + between)

    def gaussian(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [D] and unbiased covariance [D, D]; the latter is singular where count <= D.

        Raises:
          InputError: fewer than two images.
        """
        if self.count < 2:
            raise InputError(f"a covariance of {self.count} image; give at least 2, better more than D")
        return self.mean, self.scatter / (self.count - 1)


def moments(features: ArrayLike) -> Moments:
    """Moments of features [N, D], real numbers of any type, which may be on disk (`numpy.memmap`).

    Raises:
      InputError: no features, another shape, or values that are not finite.
    """
    features = checks.features(features, least=1)
    parts = (features[start : start + checks.ROWS] for start in range(0, len(features), checks.ROWS))
    return functools.reduce(Moments.merge, map(_moments, parts))


def _moments(part: np.ndarray) -> Moments:
    x = part.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    return Moments(len(x), mean, x.T @ x)


def distance(real: Moments, generated: Moments) -> float:
    """The Fréchet distance of the Gaussians fitted to two sets (`gaussian_distance`).

    With fewer images than dimensions it is exact for the covariances as they are, singular, but these say little of
    what the images were drawn from.

    Raises:
      InputError: fewer than two images in a set, or sets that differ in D.
      RunError: as of `gaussian_distance`.
    """
    return gaussian_distance(real.gaussian(), generated.gaussian())


def gaussian_distance(a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike]) -> float:
    """|m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2) of two Gaussians: Dowson & Landau 1982; Heusel et al. 2017, section 2.

    The trace of (A B)^1/2 is the sum of the singular values of A^1/2 B^1/2. Unlike a general matrix square root this
    stays exact for singular covariances, and nothing is added to their diagonals.

    Args:
      a, b: (mean [D], covariance [D, D]): of `Moments.gaussian`, or published ones ("mu" and "sigma").

    Returns:
      The squared distance, as the literature gives it; of equal Gaussians it is 0 up to rounding, of either sign.

    Raises:
      InputError: shapes that do not fit.
      RunError: a covariance is not symmetric or has a negative eigenvalue beyond the rounding of its own type, or
        values are not finite.
    """
    (mean_a, root_a, trace_a), (mean_b, root_b, trace_b) = _prepared(*a), _prepared(*b)
    checks.same_size(len(mean_a), len(mean_b))
    try:
        cross = np.linalg.svd(root_a @ root_b, compute_uv=False).sum()
    except np.linalg.LinAlgError as error:
        raise RunError(f"the square root of a product of covariances failed ({error}); look at the images") from error
    shift = mean_a - mean_b
    return float(shift @ shift + trace_a + trace_b - 2.0 * cross)


def check_gaussian(mean: ArrayLike, covariance: ArrayLike) -> None:
    """Raises what `gaussian_distance` would, of one Gaussian."""
    _prepared(mean, covariance)


def _prepared(mean, covariance) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean, square root of the covariance, and its trace, float64."""
    mean, covariance = np.asarray(mean), np.asarray(covariance)
    eps = np.finfo(covariance.dtype).eps if covariance.dtype.kind == "f" else 0.0
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if mean.ndim != 1 or not mean.size or covariance.shape != (len(mean), len(mean)):
        raise InputError(f"a mean {list(mean.shape)} and a covariance {list(covariance.shape)}; give [D] and [D, D]")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise RunError("a mean or covariance is not finite; look at the images")
    skew, largest = np.abs(covariance - covariance.T).max(), np.abs(covariance).max()
    if skew > max(ROUNDING, eps) * largest:
        raise RunError(f"a covariance is not symmetric, by {skew:.3g}; a covariance of features is")
    try:
        values, vectors = np.linalg.eigh(covariance)
    except np.linalg.LinAlgError as error:
        raise RunError(f"the eigenvalues of a covariance were not found ({error}); look at the images") from error
    # Rounding each entry to eps / 2 of itself moves no eigenvalue by more than that times the Frobenius norm (Weyl).
    if values[0] < -max(ROUNDING * np.abs(values).max(), eps * np.linalg.norm(covariance)):
        raise RunError(f"a covariance has the eigenvalue {values[0]:.3g}; a Fréchet distance needs none below 0")
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return mean, root, float(np.trace(covariance))
