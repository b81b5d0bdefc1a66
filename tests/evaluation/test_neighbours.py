"""Metrics of nearest neighbours against loops over their definitions, and against sets whose answers are known."""

import tracemalloc

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.evaluation import neighbours
from diffusion_jax.evaluation.neighbours import density_coverage, memorisation, nearest, precision_recall

BLOCKS = [1, 7, 1000]


def radius(points, i, k):
    return sorted(np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i)[k - 1]


def inside(point, centres, k):
    """In how many balls about `centres` the point is."""
    return sum(np.linalg.norm(point - centres[i]) <= radius(centres, i, k) for i in range(len(centres)))


def naive_precision_recall(real, generated, k):
    precision = np.mean([inside(x, real, k) > 0 for x in generated])
    return precision, np.mean([inside(x, generated, k) > 0 for x in real])


def naive_density_coverage(real, generated, k):
    density = sum(inside(x, real, k) for x in generated) / (k * len(generated))
    covered = [min(np.linalg.norm(x - y) for y in generated) <= radius(real, i, k) for i, x in enumerate(real)]
    return density, np.mean(covered)


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    return rng.standard_normal((23, 3)), rng.standard_normal((17, 3)) + 1.3


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_definitions(sets, k, block):
    expected = naive_precision_recall(*sets, k)
    assert 0.2 < min(expected) < max(expected) < 1.0
    np.testing.assert_allclose(precision_recall(*sets, k, block), expected, rtol=1e-12)
    np.testing.assert_allclose(density_coverage(*sets, k, block), naive_density_coverage(*sets, k), rtol=1e-12)


def test_the_two_sets_have_their_parts(sets):
    assert precision_recall(*sets) == precision_recall(*sets[::-1])[::-1]
    assert density_coverage(*sets) != density_coverage(*sets[::-1])


def test_far_from_zero_the_answers_are_the_same(sets):
    """1e11 away products of float64 would keep nothing of the distances, were they not moved."""
    moved = [np.round(x * 1000) for x in sets]
    far = [x + 1e11 for x in moved]
    assert precision_recall(*far) == precision_recall(*moved)
    assert density_coverage(*far) == density_coverage(*moved)


def test_equal_and_disjoint_sets(sets):
    real, _ = sets
    assert precision_recall(real, real) == (1.0, 1.0)
    found = density_coverage(real, real, k=5)
    # Every ball holds its centre and k others.
    np.testing.assert_allclose(found, (6 / 5, 1.0))
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    assert density_coverage(real, real + 100) == (0.0, 0.0)


def test_points_on_a_line():
    """Real 0, 1, 2, 3, 4 with k = 1: balls of radius 1 about each, so from -1 to 5 with the ends (closed balls)."""
    real = np.arange(5.0)[:, None]
    generated = np.array([-1.0, -1.1, 2.0, 5.0, 5.5, 100.0])[:, None]
    assert precision_recall(real, generated, k=1).precision == 3 / 6
    # Radii of the generated: .1, .1, 3, .5, .5, 94.5: 2 reaches -1 to 5, all of the real points.
    assert precision_recall(real, generated, k=1).recall == 1.0
    # -1 is in one ball, 2 in three (of 1, 2, 3), 5 in one.
    assert density_coverage(real, generated, k=1) == (5 / 6, 5 / 5)
    # 2.5 is in the balls of 2 and 3 only.
    assert density_coverage(real, np.full((2, 1), 2.5), k=1) == (2.0, 2 / 5)


def test_copies_are_at_no_distance():
    """Real images that occur twice have balls of radius 0, and a copy is in them, whatever products round to."""
    rng = np.random.default_rng(1)
    once = rng.standard_normal((30, 50)) * 1e3 + 1e5
    real = np.concatenate([once, once])
    assert precision_recall(real, once, k=1).precision == 1.0
    assert density_coverage(real, once, k=1) == (2.0, 1.0)
    assert precision_recall(real, once + 1.0, k=1).precision == 0.0  # control
    np.testing.assert_array_equal(nearest(once, real).distance, 0.0)


def test_collapse_and_an_outlier(sets):
    """One image again and again: no recall. An outlier inflates recall, and leaves coverage."""
    real, _ = sets
    collapsed = np.repeat(real[:1], 20, axis=0)
    assert precision_recall(real, collapsed) == (1.0, 1 / 23)
    far = np.concatenate([collapsed, np.full((1, 3), 50.0), np.full((1, 3), -50.0)])
    assert precision_recall(real, far).recall == 1.0
    assert density_coverage(real, far).coverage == density_coverage(real, collapsed).coverage < 0.8


@pytest.mark.parametrize("block", BLOCKS)
def test_nearest(sets, block):
    real, generated = sets
    distances = np.array([[np.linalg.norm(x - y) for y in real] for x in generated])
    found = nearest(generated, real, block)
    np.testing.assert_array_equal(found.index, distances.argmin(1))
    np.testing.assert_allclose(found.distance, distances.min(1), rtol=1e-10)


def test_nearest_of_images():
    """Pixels in bytes: no distance wraps around, and the first of equals is named."""
    rng = np.random.default_rng(2)
    known = rng.integers(0, 256, (12, 4, 4, 1), np.uint8)
    known[9] = known[5]
    images = known[[3, 5, 11]].copy()
    images[0, 0, 0] ^= 255
    found = nearest(images, known, block=4)
    np.testing.assert_array_equal(found.index, [3, 5, 11])
    changed = abs(int(images[0, 0, 0, 0]) - int(known[3, 0, 0, 0]))
    np.testing.assert_array_equal(found.distance, [changed, 0, 0])


def test_memorisation():
    rng = np.random.default_rng(3)
    train, test, drawn = rng.standard_normal((3, 60, 8))
    assert memorisation(test, train, test) == 1.0
    assert memorisation(train[::2], train, test) == 0.0
    np.testing.assert_allclose(memorisation(drawn, train, test), 1.0, atol=0.2)
    assert memorisation(train + 0.01, train, test) < 0.05
    with pytest.raises(InputError, match="every test image"):
        memorisation(test, train, train[:5])


def test_memory_does_not_grow_with_the_square():
    """3000 x 3000 distances are 72 MB; blocks of 100 take 2 MB and the features themselves 0.4."""
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, 3000, 8))
    for measure in (precision_recall, density_coverage):
        tracemalloc.start()
        measure(x, y, block=100)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6


def test_wrong_features(sets):
    real, generated = sets
    with pytest.raises(InputError, match="3 generated images and k = 3; at least 4"):
        precision_recall(real, generated[:3])
    with pytest.raises(InputError, match="5 real images and k = 5; at least 6"):
        density_coverage(real[:5], generated)
    with pytest.raises(InputError, match="k = 0"):
        precision_recall(real, generated, k=0)
    with pytest.raises(InputError, match="blocks of 0"):
        precision_recall(real, generated, block=0)
    with pytest.raises(InputError, match="3 and of 2 dimensions"):
        density_coverage(real, generated[:, :2])
    with pytest.raises(InputError, match="real features are not finite"):
        precision_recall(np.where(real > 1, np.nan, real), generated)
    with pytest.raises(InputError, match="one shape"):
        nearest(np.zeros((3, 8, 8, 1)), np.zeros((3, 8, 8, 3)))
    with pytest.raises(InputError, match="known images of 0"):
        nearest(np.zeros((3, 8)), np.zeros((0, 8)))


def test_squared_distances():
    """The blocks give what all distances at once give, at sizes that no block divides."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 101, 16))
    squared = ((x[:, None] - y) ** 2).sum(-1)
    parts = neighbours._blocks(neighbours._Points(x, y[:1]), neighbours._Points(y, y[:1]), 33)
    found = np.empty_like(squared)
    for rows, columns, part in parts:
        found[rows, columns] = part
    np.testing.assert_allclose(found, squared, rtol=1e-9)
