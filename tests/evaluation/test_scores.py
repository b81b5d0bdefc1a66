"""Inception Score and kernel distance against loops over their definitions, and against known answers."""

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.evaluation import scores


def naive_score(p):
    marginal = [np.mean([row[k] for row in p]) for k in range(len(p[0]))]
    divergence = [sum(a * np.log(a / b) for a, b in zip(row, marginal, strict=True) if a > 0) for row in p]
    return np.exp(np.mean(divergence))


def naive_mmd(x, y):
    def kernel(a, b):
        return (np.dot(a, b) / len(a) + 1.0) ** 3

    def within(z):
        return np.mean([kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])

    return within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("splits", [1, 3, 7])
def test_score_is_its_definition(rng, splits):
    """25 images: splits are consecutive, as equal as can be."""
    logits = rng.standard_normal((25, 6)) * 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    bounds = [i * 25 // splits for i in range(splits + 1)]
    parts = [naive_score(p[bounds[i] : bounds[i + 1]]) for i in range(splits)]
    found = scores.inception_score(logits, splits)
    np.testing.assert_allclose(found, (np.mean(parts), np.std(parts)), rtol=1e-12, atol=1e-14)
    shifted = scores.inception_score(logits + rng.standard_normal((25, 1)) * 100, splits)
    np.testing.assert_allclose(shifted, found, rtol=1e-9, atol=1e-12)


def test_known_scores():
    certain = np.where(np.eye(10)[np.arange(100) % 10] == 1, 0.0, -np.inf)
    np.testing.assert_allclose(scores.inception_score(certain, 10), (10.0, 0.0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scores.inception_score(np.zeros((20, 10)), 2), (1.0, 0.0), rtol=1e-12, atol=1e-12)
    # The order matters: in order of class, every split knows one class only.
    in_order = certain[np.argsort(np.arange(100) % 10, kind="stable")]
    np.testing.assert_allclose(scores.inception_score(in_order, 10).mean, 1.0, rtol=1e-12)
    np.testing.assert_allclose(scores.inception_score(in_order, 1).mean, 10.0, rtol=1e-12)


def test_score_of_sure_float32_logits():
    """Where float32 probabilities would be 0 and their logarithm lost, nothing is."""
    logits = np.array([[0.0, 500.0], [500.0, 0.0]] * 3, np.float32)
    np.testing.assert_allclose(scores.inception_score(logits, 1).mean, 2.0, rtol=1e-12)


def test_wrong_logits():
    with pytest.raises(InputError, match="19 images in 10 splits"):
        scores.inception_score(np.zeros((19, 4)))
    with pytest.raises(InputError, match="in 0 splits"):
        scores.inception_score(np.zeros((19, 4)), 0)
    logits = np.zeros((20, 4))
    logits[7] = -np.inf
    with pytest.raises(InputError, match="row 7 of the logits"):
        scores.inception_score(logits)
    for bad in (np.nan, np.inf):
        logits[7] = bad
        with pytest.raises(InputError, match="row 7"):
            scores.inception_score(logits)


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_kernel_distance_is_its_definition(rng, block):
    x, y = rng.standard_normal((9, 5)), rng.standard_normal((7, 5)) + 0.3
    np.testing.assert_allclose(scores.kernel_distance(x, y, block), naive_mmd(x, y), rtol=1e-11)


def test_known_kernel_distances():
    """On a line, D = 1: pairs of equal points within, k = (x y + 1)^3 by hand."""
    zeros, ones = np.zeros((3, 1)), np.ones((2, 1))
    np.testing.assert_allclose(scores.kernel_distance(zeros, ones), 1 + 8 - 2 * 1, rtol=1e-14)
    # Of a set with itself it is not 0 but below: the pairs of a point with itself stand in one term only.
    pair = np.array([[0.0], [1.0]])
    np.testing.assert_allclose(scores.kernel_distance(pair, pair), 1 + 1 - 2 * (1 + 1 + 1 + 8) / 4, rtol=1e-14)


def test_kernel_distance_is_unbiased():
    """400 pairs of sets of 10 from one law: the mean is 0 within 4 standard errors (false alarms: 6e-5).

    Control: with the diagonals, the biased estimate, it is far off.
    """
    rng = np.random.default_rng(3)
    sets = rng.standard_normal((400, 2, 10, 4))
    found = np.array([scores.kernel_distance(x, y) for x, y in sets])
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean()) < 4 * error
    diagonal = np.array([(((x**2).sum(1) / 4 + 1) ** 3).mean() - ((x @ x.T / 4 + 1) ** 3).mean() for x, _ in sets])
    assert diagonal.mean() / 9 > 20 * error


def test_kernel_distance_of_subsets(rng):
    x, y = rng.standard_normal((40, 3)), rng.standard_normal((30, 3)) + 1
    found = scores.kernel_distance_subsets(x, y, subsets=50, size=20, seed=4)
    draws, parts = np.random.default_rng(4), []
    for _ in range(50):
        a, b = x[draws.choice(40, 20, replace=False)], y[draws.choice(30, 20, replace=False)]
        parts.append(naive_mmd(a, b))
    np.testing.assert_allclose(found, (np.mean(parts), np.std(parts)), rtol=1e-10)
    # All there is, in another order: one value, that of all images.
    whole = scores.kernel_distance_subsets(x[:30], y, subsets=3, size=30)
    np.testing.assert_allclose(whole, (scores.kernel_distance(x[:30], y), 0.0), rtol=1e-10, atol=1e-10)


def test_wrong_features(rng):
    x = rng.standard_normal((6, 3))
    with pytest.raises(InputError, match="1 images; at least 2"):
        scores.kernel_distance(x[:1], x)
    with pytest.raises(InputError, match="3 and of 2 dimensions"):
        scores.kernel_distance(x, x[:, :2])
    with pytest.raises(InputError, match="generated features are not finite in row 0"):
        scores.kernel_distance(x, x * np.inf)
    with pytest.raises(InputError, match="100 subsets of 7 of 6"):
        scores.kernel_distance_subsets(x, x, size=7)
    with pytest.raises(InputError, match="0 subsets"):
        scores.kernel_distance_subsets(x, x, subsets=0, size=3)
