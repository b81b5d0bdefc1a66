"""Editing with a consistency function: what is known stays, what is free is drawn, and how far that law is off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers
from diffusion_jax.diffusion.few_step import consistency, editing

pytestmark = pytest.mark.slow

LEVELS = consistency.levels()
PROCESS = consistency.process(LEVELS, consistency.renoising())
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)))


def drawn(run, denoise, times, shape, keys):
    x = jax.vmap(lambda key: PROCESS.prior(key, shape))(keys)
    return run(samplers.ancestral(PROCESS), times, denoise, x, keys)


def shrinking(x, t):
    return Gaussian(jnp.tanh(x) / (1 + t))


def luminance(images):
    return images @ np.array([0.2989, 0.5870, 0.1140])


def means(images):
    return np.asarray(images).reshape(2, 2, 2, 2, 2, 3).mean((2, 4))


@pytest.mark.usefixtures("x64")
def test_what_is_known_stays_and_the_rest_is_drawn():
    times, images = consistency.grid([80.0, 10.0, 1.0]), jnp.asarray(IMAGES, jnp.float64)
    keys = jax.random.split(jax.random.key(0), 2)
    mask = np.arange(4)[:, None] < 2
    runs = {
        "inpainted": (editing.inpainted(images, mask[..., None]), lambda x: x[:, :2]),
        "coloured": (editing.coloured(images), luminance),
        "enlarged": (editing.enlarged(means(images), 2), means),
    }
    for name, (run, known) in runs.items():
        found = drawn(run, shrinking, times, (4, 4, 3), keys)
        np.testing.assert_allclose(known(found), known(images), atol=1e-14, err_msg=name)
        other = drawn(run, shrinking, times, (4, 4, 3), jax.random.split(jax.random.key(1), 2))
        assert np.abs(found - other).max() > 0.1  # also of what is free, in the first look alone too:
        once = [
            drawn(run, shrinking, times[[0, -1]], (4, 4, 3), jax.random.split(jax.random.key(k), 2)) for k in (0, 1)
        ]
        assert np.abs(once[0] - once[1]).max() > 0.1
    np.testing.assert_array_equal(
        drawn(runs["inpainted"][0], shrinking, times, (4, 4, 3), keys)[:, :2], images[:, :2]
    )
    # Control: a chain that knows nothing keeps none of it.
    free = drawn(samplers.solve, shrinking, times, (4, 4, 3), keys)
    assert all(np.abs(known(free) - known(images)).max() > 0.1 for _, known in runs.values())


@pytest.mark.usefixtures("x64")
def test_coordinates_are_orthonormal():
    for first in (editing.LUMINANCE, np.ones(4), (1.0, 0.0)):
        matrix = editing.completed(first)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(first)), atol=1e-15)
        np.testing.assert_allclose(matrix[:, 0], first / np.linalg.norm(first), atol=1e-15)
    patches = editing.of_patches(editing.completed(np.ones(4)), 2)
    images = jnp.asarray(IMAGES, jnp.float64)
    coefficients = patches.to(images)
    assert coefficients.shape == (2, 2, 2, 4, 3)
    np.testing.assert_allclose(coefficients[..., 0, :], 2 * means(images), atol=1e-15)
    np.testing.assert_allclose(patches.back(coefficients), images, atol=1e-15)
    with pytest.raises(InputError, match="patches of 3 pixels do not divide an image of 4x4"):
        editing.of_patches(np.eye(9), 3).to(images)
    with pytest.raises(InputError, match="what is known has the shape"):
        editing.inpainted(images, 1.0)(None, None, None, images[:, :2], None)


def test_it_is_no_sampling_of_the_conditional_law():
    """Two pixels of correlation 0.9, the first known as 1: the second has mean 0.9, the chain 0.71 on 40 levels.

    The exact consistency function, 4000 chains of seed 0, of spread below 0.8: within 0.06, five standard errors.
    """
    law = np.array([[1.0, 0.9], [0.9, 1.0]])
    values, vectors = np.linalg.eigh(law)

    def exact(x, t):
        level = LEVELS.sigma(t)
        each = jnp.sqrt((values + consistency.LOW**2) / (values + level**2))
        return Gaussian(jnp.einsum("ij,j,kj,bk->bi", vectors, each, vectors, x.reshape(-1, 2)).reshape(x.shape))

    known = jnp.ones((4000, 1, 2, 1))
    run = editing.inpainted(known, np.array([1.0, 0.0])[:, None])
    keys = jax.random.split(jax.random.key(0), 4000)
    found = jax.jit(lambda keys: drawn(run, exact, consistency.training_grid(40), (1, 2, 1), keys))(keys)
    assert (found[:, 0, 0] == 1).all()
    assert found[:, 0, 1].mean() == pytest.approx(0.71, abs=0.06)
