"""Blocks of pixels as one pixel, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.ops.patches import gathered, spread
from diffusion_jax.models.unets.of_patches import OfPatches

X = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)


def test_a_block_is_one_pixel_and_comes_back():
    blocks = np.asarray(gathered(jnp.asarray(X), 2))
    assert blocks.shape == (2, 2, 3, 12)
    for row, column in np.ndindex(2, 3):
        block = X[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(blocks[:, row, column], block.reshape(2, 12))
    np.testing.assert_array_equal(spread(jnp.asarray(blocks), 2), X)
    with pytest.raises(InputError, match="blocks of 4x4 do not tile an image of 4x6"):
        gathered(jnp.asarray(X), 4)


def test_a_network_of_blocks_is_told_what_it_would_be_told_of_pixels():
    class Answer(nn.Module):
        def __call__(self, x, time, cond=None, dropout_keys=None):
            assert x.shape == (2, 2, 3, 12)
            return x[..., :4] * cond["scale"][:, None, None, None] + time[:, None, None, None]

    model = OfPatches(Answer(), 2)
    cond, time = {"scale": jnp.array([2.0, 3.0])}, jnp.array([10.0, 20.0])
    out = model.apply(model.init(jax.random.key(0), X, time, cond), X, time, cond)
    # The first four of a block's twelve numbers are the first pixel's three and one of the second's.
    assert out.shape == (2, 4, 6, 1)
    first = X[:, ::2, ::2, 0] * np.array([2, 3])[:, None, None] + np.array([10, 20])[:, None, None]
    np.testing.assert_array_equal(out[:, ::2, ::2, 0], first)
