"""Moments against NumPy's, Fréchet distances against SciPy's matrix square root and closed forms."""

import numpy as np
import pytest
import scipy.linalg

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.evaluation import frechet

D = 12


def features(seed, count, dimensions=D, rank=None, shift=0.0):
    """Correlated, in a subspace of `rank` dimensions."""
    rng = np.random.default_rng(seed)
    rank = rank or dimensions
    return rng.standard_normal((count, rank)) @ rng.standard_normal((rank, dimensions)) + shift


def merged(x, cuts):
    first, *rest = np.split(x, cuts)
    total = frechet.moments(first)
    for part in rest:
        total = total.merge(frechet.moments(part))
    return total


def naive(x, y):
    """By the formula, with a general square root."""
    root = scipy.linalg.sqrtm(np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)).real
    shift = x.mean(0) - y.mean(0)
    return shift @ shift + np.trace(np.cov(x, rowvar=False) + np.cov(y, rowvar=False) - 2 * root)


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3], [50], [7, 60, 99]])
def test_moments_of_batches_are_those_of_all(cuts):
    x = features(0, 100)
    total = merged(x, cuts)
    mean, covariance = total.gaussian()
    assert total.count == 100
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(x, rowvar=False), rtol=1e-11, atol=1e-12)


def test_far_from_zero_nothing_cancels():
    """1e6 deviations from 0: the mean of squares less the square of the mean would keep four digits."""
    x = features(1, 1000, 3) + 1e6
    _, covariance = merged(x, list(range(10, 1000, 10))).gaussian()
    expected = np.cov(x - 1e6, rowvar=False)
    np.testing.assert_allclose(covariance, expected, rtol=1e-7)
    careless = (x.T @ x) / 999 - np.outer(x.mean(0), x.mean(0)) * 1000 / 999
    assert np.abs(careless / expected - 1).max() > 1e-5  # control


def test_the_order_of_merging_does_not_matter():
    a, b, c = (frechet.moments(features(seed, count, shift=seed)) for seed, count in ((0, 3), (1, 40), (2, 7)))
    left, right = a.merge(b).merge(c), c.merge(a.merge(b))
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-12)
    np.testing.assert_allclose(left.scatter, right.scatter, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("x_rank", "y_rank"), [(D, D), (5, D), (D, 3)])
def test_equals_the_general_square_root(seed, x_rank, y_rank):
    """SciPy's root of a product that is singular is good to about the root of rounding."""
    x, y = features(seed, 60, rank=x_rank), features(10 + seed, 50, rank=y_rank, shift=1.0)
    found = frechet.distance(frechet.moments(x), frechet.moments(y))
    regular = x_rank == y_rank == D
    np.testing.assert_allclose(found, naive(x, y), rtol=1e-9 if regular else 1e-5)


def test_singular_covariances_have_their_exact_distance():
    """In a subspace of k dimensions and out of it: no SciPy, which fails here, but the small covariances."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 40, 4))
    basis = np.linalg.qr(rng.standard_normal((D, D)))[0][:4]
    small = frechet.distance(frechet.moments(x), frechet.moments(y))
    large = frechet.distance(frechet.moments(x @ basis), frechet.moments(y @ basis))
    np.testing.assert_allclose(large, small, rtol=1e-6)


def test_fewer_images_than_dimensions():
    x, y = features(0, 5), features(1, 4)
    found = frechet.distance(frechet.moments(x), frechet.moments(y))
    shift = x.mean(0) - y.mean(0)
    # tr (A B)^1/2 of A = X^T X, B = Y^T Y is the nuclear norm of X Y^T.
    x, y = (x - x.mean(0)) / np.sqrt(4), (y - y.mean(0)) / np.sqrt(3)
    expected = shift @ shift + (x**2).sum() + (y**2).sum() - 2 * np.linalg.norm(x @ y.T, "nuc")
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_known_answers():
    x = features(0, 50)
    moments = frechet.moments(x)
    np.testing.assert_allclose(frechet.distance(moments, moments), 0.0, atol=1e-10)
    np.testing.assert_allclose(frechet.distance(moments, frechet.moments(x + 2.0)), 4.0 * D, rtol=1e-10)
    # Twice as wide: |1 - 2|^2 of the variances' sum.
    wide = frechet.moments(x.mean(0) + 2 * (x - x.mean(0)))
    np.testing.assert_allclose(frechet.distance(moments, wide), np.trace(moments.gaussian()[1]), rtol=1e-9)


def test_covariances_that_do_not_commute():
    """In two dimensions tr (A B)^1/2 has the closed form (tr A B + 2 sqrt(det A B))^1/2."""
    mean = np.zeros(2)
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    cross = np.sqrt(np.trace(a @ b) + 2.0 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2.0 * cross
    np.testing.assert_allclose(frechet.gaussian_distance((mean, a), (mean, b)), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.diag([1.0, -0.001]), "eigenvalue"),
        (np.diag([1.0, np.nan]), "not finite"),
        (np.diag([1.0, np.inf]), "not finite"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
    ],
)
def test_what_is_no_covariance_is_refused(bad, message, scale):
    """Of whatever scale; and nothing is repaired in silence."""
    mean = np.zeros(2)
    for pair in (((mean, scale * bad), (mean, np.eye(2))), ((mean, np.eye(2)), (mean, scale * bad))):
        with pytest.raises(RunError, match=message):
            frechet.gaussian_distance(*pair)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rounded_covariances_are_taken_to_their_rounding(dtype):
    """Singular ones: rounding makes some of their zeros negative. As float64 that would be no rounding."""
    mean, exact = frechet.moments(features(0, 6)).gaussian()
    rounded, eye = exact.astype(dtype), (np.zeros(D), np.eye(D))
    assert np.linalg.eigvalsh(rounded.astype(np.float64))[0] < -1e-9
    eps = float(np.finfo(dtype).eps)
    expected = frechet.gaussian_distance((mean, exact), eye)
    np.testing.assert_allclose(frechet.gaussian_distance((mean, rounded), eye), expected, rtol=5 * eps**0.5)
    with pytest.raises(RunError, match="eigenvalue"):
        frechet.gaussian_distance((mean, rounded.astype(np.float64)), eye)
    with pytest.raises(RunError, match="eigenvalue"):
        frechet.gaussian_distance((mean, (exact - 3 * eps * np.linalg.norm(exact) * np.eye(D)).astype(dtype)), eye)


def test_the_eigenvalue_is_said():
    with pytest.raises(RunError, match=r"eigenvalue -0\.25;"):
        frechet.gaussian_distance((np.zeros(2), np.diag([1.0, -0.25])), (np.zeros(2), np.eye(2)))


def test_wrong_features():
    good = frechet.moments(features(0, 5))
    with pytest.raises(InputError, match="a covariance of 1 image"):
        frechet.distance(good, frechet.moments(features(0, 1)))
    with pytest.raises(InputError, match="12 and of 13 dimensions"):
        frechet.distance(good, frechet.moments(features(0, 5, D + 1)))
    with pytest.raises(InputError, match="12 and of 13 dimensions"):
        good.merge(frechet.moments(features(0, 5, D + 1)))
    with pytest.raises(InputError, match=r"float64 \[5\]"):
        frechet.moments(np.zeros(5))
    broken = features(0, 5)
    broken[3, 2] = np.nan
    with pytest.raises(InputError, match="row 3"):
        frechet.moments(broken)
    with pytest.raises(InputError, match=r"\[2\] and a covariance \[3, 3\]"):
        frechet.gaussian_distance((np.zeros(2), np.eye(3)), (np.zeros(3), np.eye(3)))
