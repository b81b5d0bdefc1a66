"""Attention with a text's keys: what it reads, by what it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.conditioning import GivenEmbedding, SizesEmbedding
from diffusion_jax.models.blocks.layers import LayerContext
from diffusion_jax.models.unets.added_keys import AddedKeyUNet, TextAttention, TextOnlyAttention

X = np.random.default_rng(0).normal(size=(2, 4, 2, 8)).astype(np.float32)
TOKENS = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
MASK = np.array([[1, 1, 1, 0, 0]] * 2, bool)
EMBEDDING = np.zeros((2, 1), np.float32)


def read(kind, params, x, tokens, mask=None):
    x = jnp.asarray(x)
    return kind(heads=2, groups=4).apply({"params": params}, x, LayerContext(EMBEDDING, tokens, token_mask=mask)) - x


def at_random(kind):
    template = jax.eval_shape(kind(groups=4).init, jax.random.key(0), X, LayerContext(EMBEDDING, TOKENS))["params"]
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 2, template)


@pytest.mark.parametrize("kind", [TextAttention, TextOnlyAttention])
def test_a_token_that_is_withheld_is_as_if_it_were_not_there(kind):
    params = at_random(kind)
    shorter = read(kind, params, X, TOKENS[:, :3])
    np.testing.assert_allclose(read(kind, params, X, TOKENS, MASK), shorter, rtol=1e-4, atol=1e-5)
    assert np.abs(read(kind, params, X, TOKENS) - shorter).max() > 0.1
    assert np.isfinite(read(kind, params, X, TOKENS, ~MASK & MASK)).all()


def test_pixels_see_one_another_unless_they_read_the_text_alone():
    """Two pixels exchange half of their channels: no mean of the normalisation changes, and no other pixel."""
    other = X.copy()
    other[:, 0, 0, ::2], other[:, 1, 1, ::2] = X[:, 1, 1, ::2], X[:, 0, 0, ::2]
    moved = {}
    for kind in (TextAttention, TextOnlyAttention):
        params = at_random(kind)
        moved[kind] = np.abs(read(kind, params, other, TOKENS) - read(kind, params, X, TOKENS))[:, 2:].max()
    assert moved[TextOnlyAttention] < 1e-5
    assert moved[TextAttention] > 1e-2


def test_what_does_not_fit_is_named_in_one_line():
    with pytest.raises(InputError, match="a vector of 3 features; this network takes 4"):
        GivenEmbedding().apply({}, np.zeros((1, 3)), 4)
    with pytest.raises(InputError, match="8 features and 5 time_ids of 4 make 28; this network takes 32"):
        SizesEmbedding(4, 32).init(jax.random.key(0), np.zeros((1, 8)), np.zeros((1, 5)), 4)
    with pytest.raises(InputError, match="text_only_levels: 9; levels run from 0 to 4, the middle"):
        AddedKeyUNet(text_only_levels=(9,)).check(np.zeros((1, 8, 8, 3)))
