"""Inception Score and kernel distance (KID), in NumPy float64."""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.evaluation import checks


class Estimate(NamedTuple):
    """A mean over parts of the images, and the standard deviation over the parts (of the parts, not of the mean)."""

    mean: float
    std: float


def inception_score(logits: ArrayLike, splits: int = 10) -> Estimate:
    """exp E KL(p(y|x) || p(y)): Salimans et al. 2016, section 4. From 1 (bad) to the number of classes.

    p(y) is the mean over a split. The splits are consecutive images, as in the papers' code, so the order matters:
    images in order of their class must be shuffled first. The score grows with the size of a split.

    Args:
      logits: [N, K], real numbers up to a constant a row: logarithms of probabilities are logits, and -inf is
        allowed.
      splits: how many parts, equal up to one image.

    Returns:
      Mean and standard deviation over the splits.

    Raises:
      InputError: another shape, NaN or inf, a row of nothing but -inf, or fewer images than 2 a split.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        checks.features(logits, "logits")  # says what is wrong
    if splits < 1 or len(logits) < 2 * splits:
        raise InputError(f"{len(logits)} images in {splits} splits; give at least 2 a split, or fewer splits")
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    scores = [_score(_log_p(logits[begin:end], begin)) for begin, end in itertools.pairwise(bounds)]
    return Estimate(float(np.mean(scores)), float(np.std(scores)))


def _log_p(logits: np.ndarray, first: int) -> np.ndarray:
    """Log probabilities of a split, whose first row is `first` of all."""
    # -inf is a probability of 0; in its place the check sees a number.
    finite = np.where(np.isneginf(logits), 0, logits) if logits.dtype.kind == "f" else logits
    checks.features(finite, "logits", first=first)
    logits = logits.astype(np.float64)
    highest = logits.max(axis=1, keepdims=True)
    if np.isneginf(highest).any():
        raise InputError(f"row {first + int(np.argmin(highest))} of the logits is -inf throughout; no class is left")
    logits = logits - highest
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    # 0 log 0 is 0; where p is not 0 its mean is not either.
    marginal = p.mean(axis=0)
    terms = np.zeros_like(p)
    np.multiply(p, log_p - np.log(np.where(marginal > 0, marginal, 1.0)), out=terms, where=p > 0)
    return float(np.exp(terms.sum(axis=1).mean()))


def kernel_distance(real: ArrayLike, generated: ArrayLike, block: int = 1000) -> float:
    """KID of all images: the unbiased estimate of MMD^2 with the kernel (x . y / D + 1)^3.

    Binkowski et al. 2018, section 4, with equation 4 of Gretton et al. 2012 for sets of any two sizes. Its
    expectation does not depend on the number of images, and it may be negative.

    Args:
      real, generated: features [N, D] and [M, D].
      block: how many rows of the kernel are held at a time; the result does not depend on it.

    Raises:
      InputError: fewer than two images, sets that differ in D, or values that are not finite.
    """
    real, generated = checks.pair(real, generated)
    return _mmd(real, generated, block)


def kernel_distance_subsets(
    real: ArrayLike, generated: ArrayLike, subsets: int = 100, size: int = 1000, seed: int = 0
) -> Estimate:
    """KID as it is published: mean and standard deviation of `kernel_distance` over random subsets.

    Args:
      real, generated: features [N, D] and [M, D].
      subsets: how many pairs of subsets.
      size: images in a subset, drawn without replacement from each set.
      seed: of the subsets.

    Raises:
      InputError: as of `kernel_distance`; or a subset is larger than a set, smaller than two, or there is none.
    """
    real, generated = checks.pair(real, generated)
    least = min(len(real), len(generated))
    if not 2 <= size <= least or subsets < 1:
        raise InputError(f"{subsets} subsets of {size} of {least} images; give at least 1, of 2 to {least}")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        x, y = (set_[rng.choice(len(set_), size, replace=False)] for set_ in (real, generated))
        found.append(_mmd(x, y, size))
    return Estimate(float(np.mean(found)), float(np.std(found)))


def _mmd(x, y, block: int) -> float:
    m, n = len(x), len(y)
    within = _sum(x, x, block) - _diagonal(x)
    within_other = _sum(y, y, block) - _diagonal(y)
    return float(within / (m * (m - 1)) + within_other / (n * (n - 1)) - 2.0 * _sum(x, y, block) / (m * n))


def _sum(x, y, block: int) -> float:
    """Of the kernel over all pairs."""
    total = 0.0
    for i in range(0, len(x), block):
        rows = x[i : i + block].astype(np.float64)
        for j in range(0, len(y), block):
            total += _cube(rows @ y[j : j + block].astype(np.float64).T / x.shape[1]).sum()
    return total


def _diagonal(x) -> float:
    return _cube(np.einsum("nd,nd->n", x, x, dtype=np.float64) / x.shape[1]).sum()


def _cube(products):
    # A power by an integer is a hundred times slower in NumPy.
    shifted = products + 1.0
    return shifted * shifted * shifted
