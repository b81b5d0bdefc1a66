"""A decoder on tiles says what it says of the whole picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.autoencoders.convolutional import ConvolutionalAutoencoder
from diffusion_jax.models.autoencoders.tiled import tiled

NETWORK = ConvolutionalAutoencoder(latent=2, dim=2, widths=(4, 8, 8), blocks=1, groups=2, middle_attention=False)
NORMALISATIONS = 9  # of its two upper levels


@pytest.fixture(scope="module")
def drawn():
    """(parameters, all of them random, latents whose upper half is three times as large, their picture)."""
    shapes = jax.eval_shape(NETWORK.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    rng = np.random.default_rng(0)

    def draw(path, x):
        about = float(path[-1].key == "scale")
        return jnp.asarray(about + rng.normal(0, x.size**-0.5 if x.ndim > 1 else 0.2, x.shape), jnp.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    z = np.asarray(rng.normal(size=(2, 20, 14, 2)), np.float32)
    z[:, :10] *= 3
    return params, z, jax.jit(lambda p, z: NETWORK.apply({"params": p}, z, method="decode"))(params, z)


def test_tiles_are_the_whole(drawn):
    params, z, whole = drawn
    found = jax.jit(tiled(NETWORK, 52, NORMALISATIONS))(params, z)
    assert found.shape == whole.shape == (2, 80, 56, 3)
    np.testing.assert_allclose(found, whole, atol=1e-5 * float(whole.std()))


def test_statistics_of_each_tile_alone_are_others(drawn):
    params, z, whole = drawn
    found = jax.jit(tiled(NETWORK, 52, 1))(params, z)
    assert jnp.abs(found - whole).max() > 1e-2 * whole.std()


def test_small_pictures_are_decoded_whole(drawn):
    params, z, whole = drawn
    assert (jax.jit(tiled(NETWORK, 80))(params, z) == whole).all()


def test_refusals():
    with pytest.raises(InputError, match="take 36"):
        tiled(NETWORK, 32)
    with pytest.raises(InputError, match="more than 2 levels"):
        tiled(NETWORK.clone(widths=(4, 8)), 64)
