import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.processes import degrade

SHAPE = (4, 8, 2)
X = jax.random.normal(jax.random.key(0), SHAPE)


def blocks(x, rows, columns):
    """Block means by loops."""
    out = np.array(x)
    for i in range(0, x.shape[0], rows):
        for j in range(0, x.shape[1], columns):
            out[i : i + rows, j : j + columns] = out[i : i + rows, j : j + columns].mean((0, 1))
    return out


def test_pooling_passes_through_every_level():
    pool = degrade.pool(SHAPE)
    for t, size in zip(np.linspace(0, 1, 4), [(1, 1), (2, 2), (4, 4), (4, 8)], strict=True):
        np.testing.assert_allclose(pool(X, t), blocks(X, *size), atol=1e-6)
    np.testing.assert_allclose(pool(X, 0.5), (blocks(X, 2, 2) + blocks(X, 4, 4)) / 2, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 20, 3), (5, 7, 1)])
def test_pooling_keeps_the_colour_and_ends_with_it(shape):
    pool, x = degrade.pool(shape), jax.random.normal(jax.random.key(1), shape)
    for t in (0.0, 0.3, 0.77, 1.0):
        np.testing.assert_allclose(pool(x, t).mean((0, 1)), x.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(pool(x, 1.0), jnp.broadcast_to(x.mean((0, 1)), shape), atol=1e-6)
    np.testing.assert_array_equal(pool(x, 0.0), x)


@pytest.mark.parametrize("make", [degrade.pool, lambda shape: degrade.mask(degrade.from_centre(*shape[:2]))])
def test_degradations_are_linear_and_take_traced_times(make):
    operator = jax.jit(make(SHAPE))
    y = jnp.flip(X)
    for t in (0.2, 0.9):
        np.testing.assert_allclose(operator(2 * X - y, t), 2 * operator(X, t) - operator(y, t), atol=1e-6)


def test_a_hole_grows_from_the_centre():
    gone = degrade.from_centre(5, 5)
    assert gone.argmin() == 12
    assert gone[0, 0] == gone.max() == 1
    fade = degrade.mask(gone, fill=-1.0)
    x = jnp.ones((5, 5, 1))
    holes = [np.asarray(fade(x, t) == -1).sum() for t in (0.0, 0.1, 0.5, 0.8, 1.0)]
    assert holes == sorted(holes)
    assert holes[0] == 0
    assert holes[-1] == 25
    np.testing.assert_array_equal(fade(x, 0.0), x)


def test_what_cannot_be_degraded_is_refused():
    with pytest.raises(InputError, match="1x1 cannot be pooled"):
        degrade.pool((1, 1, 3))
    for gone, softness in [
        (np.zeros((2, 2)), 0.1),
        (np.full((2, 2), 1.5), 0.1),
        (np.ones(3), 0.1),
        (np.ones((2, 2)), 0),
    ]:
        with pytest.raises(InputError, match="gone at times"):
            degrade.mask(gone, softness=softness)
