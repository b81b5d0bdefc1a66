"""Resizing against one-dimensional interpolation, axis by axis; `test_resizing_parity.py` has PyTorch's."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import resizing
from diffusion_jax.core.errors import InputError

X = np.random.default_rng(0).normal(size=(2, 3, 5, 2)).astype(np.float32)


def between(x, axis, places):
    """Linear along one axis; beyond the ends the outermost values."""
    return np.apply_along_axis(lambda row: np.interp(places, np.arange(len(row)), row), axis, x)


@pytest.mark.parametrize("shape", [(7, 9), (6, 10), (3, 5), (1, 11)])
def test_where_the_new_pixels_lie(shape):
    high, wide = shape
    corners = between(between(X, 1, np.linspace(0, 2, high) if high > 1 else [0]), 2, np.linspace(0, 4, wide))
    np.testing.assert_allclose(resizing.aligned(jnp.asarray(X), shape), corners, atol=1e-6)
    if high < 3:
        return
    centres = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in ((high, 3), (wide, 5))]
    halves = between(between(X, 1, centres[0]), 2, centres[1])
    np.testing.assert_allclose(resizing.bilinear(jnp.asarray(X), shape), halves, atol=1e-6)
    if high > 3:
        assert np.abs(corners - halves).max() > 0.1


def test_a_cubic_gives_back_what_it_can():
    """A cubic of a = -1/2 gives quadratics exactly, away from the border; a straight line's a = -3/4 would not."""
    rows = np.arange(8.0)
    x = jnp.asarray((rows**2)[None, :, None, None] * np.ones((1, 8, 3, 1)))
    places = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(resizing.bicubic(x, (16, 3))[0, 4:12, 1, 0], places[4:12] ** 2, rtol=1e-5)


def test_means_are_of_whole_blocks():
    x = np.arange(24.0, dtype=np.float32).reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(
        resizing.means(jnp.asarray(x), (2, 3))[0, ..., 0], [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]
    )
    for kind in (resizing.bilinear, resizing.bicubic, resizing.aligned, resizing.means):
        np.testing.assert_allclose(kind(jnp.asarray(x), (4, 6)), x, atol=1e-6)
    with pytest.raises(InputError, match="images of 4x6 are no blocks of 3x3 pixels"):
        resizing.means(jnp.asarray(x), (3, 3))
