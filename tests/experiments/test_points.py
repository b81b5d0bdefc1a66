"""The measures of points: closed forms, scipy's distance, and the control that a Fréchet distance passes."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import toys
from diffusion_jax.evaluation import frechet
from experiments.tables import few_steps, points

RNG = np.random.default_rng(0)


def test_the_sliced_distance_of_a_shift_is_known():
    """Each shadow moves by |shift| |cos|, whose mean over all directions is 2 / pi."""
    cloud, shift = RNG.normal(size=(300, 2)), np.array([0.3, -0.4])
    assert points.sliced_wasserstein(cloud, RNG.permutation(cloud) + shift) == pytest.approx(1 / np.pi, rel=1e-3)
    other = RNG.exponential(size=(300, 2))
    angle = np.pi * np.arange(points.DIRECTIONS) / points.DIRECTIONS
    shadows = [(x @ np.stack([np.cos(angle), np.sin(angle)])).T for x in (cloud, other)]
    each = [wasserstein_distance(*pair) for pair in zip(*shadows, strict=True)]
    assert points.sliced_wasserstein(cloud, other) == pytest.approx(np.mean(each), rel=1e-9)


def test_the_nearest_place_of_the_curve():
    """A little across the curve, its distance and its angle come back."""
    angle = RNG.uniform(1.6 * np.pi, 4.4 * np.pi, 600)
    along = toys.spiral(angle + 1e-5) - toys.spiral(angle - 1e-5)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    off, found = points.nearest(toys.spiral(angle) + 0.2 * across)
    np.testing.assert_allclose(off, 0.2, atol=1e-3)
    np.testing.assert_allclose(found, angle, atol=0.02)


def test_a_gaussian_fit_fails_where_the_frechet_distance_passes_it():
    """5000 points of fixed seeds: no false alarm. Of 100 other pairs of rolls the sliced distance was 0.012 to 0.054,
    and of as many Gaussian fits 0.142 to 0.165."""
    train, fit = points._controls(5000, 0).values()
    test = points._points("test", 5000)
    floor, control = points.measured(train, test), points.measured(fit, test)
    assert floor[points.METRIC] < 0.045
    assert control[points.METRIC] > 0.12
    assert floor[points.OFF] == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.05)
    assert control[points.OFF] > 0.3
    near, far = (frechet.distance(*map(frechet.moments, (x, test))) for x in (train, fit))
    assert far == pytest.approx(near, abs=0.01)


def test_curves_are_read_or_refused():
    (one, two) = (few_steps._curve(f"a={text}") for text in ("runs/{}:heun@1,2", "runs/b@4"))
    assert one == ("a", "runs/{}", "heun", [1, 2])
    assert two == ("a", "runs/b", None, [4])
    for text in ("runs/b@1", "a=runs/b", "a=runs/b@", "a=@1", "a=runs/b@0", "a=runs/b@1,x"):
        with pytest.raises(InputError, match=r"give NAME=DIR\[:SAMPLER\]@STEPS"):
            few_steps._curve(text)
    with pytest.raises(InputError, match="--num 20000: there are 10,000 points to compare with"):
        points._points("test", 20_000)
