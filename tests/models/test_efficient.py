"""Imagen's Efficient U-Net: where its blocks lie, how many parameters it has, that it is told the text."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from diffusion_jax.core.errors import InputError
from diffusion_jax.models import EfficientUNet
from diffusion_jax.models.blocks.conditioning import TokensEmbedding
from diffusion_jax.models.unets.adm import heads_always

pytestmark = pytest.mark.slow

HEADS = {"heads": heads_always(2)}
TINY = EfficientUNet(
    channels=4, multipliers=(1, 2), blocks=(1, 2), attention_levels=(1,), groups=2, out_channels=3, **HEADS,
    embed={"tokens": TokensEmbedding(2)},
)  # fmt: skip
D = 6
X = np.random.default_rng(0).normal(size=(2, 8, 4, 5)).astype(np.float32)
TOKENS = {"tokens": np.random.default_rng(1).normal(size=(2, 3, D)).astype(np.float32)}
TIME = np.array([3, 700])


def template(model, x=X, cond=TOKENS):
    return jax.eval_shape(model.init, jax.random.key(0), x, np.zeros(len(x)), cond)["params"]


def affine(inputs, outputs, window=1):
    return (window * inputs + 1) * outputs


def residual(inputs, outputs):
    """Two normalisations, two 3x3 and the 1x1 of the other branch."""
    convolutions = affine(inputs, outputs, 9) + affine(outputs, outputs, 9) + affine(inputs, outputs)
    return 2 * inputs + convolutions + 2 * outputs


def attention(width):
    """A normalisation, query, key, value, out, and key and value of the text."""
    return 2 * width + 4 * affine(width, width) + 2 * affine(D, width)


def test_parameters_are_those_counted_by_hand():
    time = affine(4, 16) + affine(16, 16)
    text = 2 * D + D + 3 * affine(D, D) + affine(D, 16) + 2 * 16
    down = affine(4, 4, 9) + affine(16, 4) + residual(4, 4)
    down += affine(4, 8, 9) + affine(16, 8) + 2 * residual(8, 8) + attention(8)
    up = affine(16, 8) + 2 * residual(8, 8) + attention(8) + affine(8, 8, 9)
    up += affine(16, 8 + 4) + residual(8 + 4, 4) + affine(4, 4, 9)
    total = time + text + affine(5, 4, 9) + down + up + 2 * 4 + affine(4, 3, 9)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(template(TINY))) == total


def test_blocks_lie_below_the_resampling():
    """The way down halves before the blocks of a level, the first too, and the way up doubles after them."""
    seen = {}

    def record(next_call, args, kwargs, context):
        result = next_call(*args, **kwargs)
        if len(context.module.path) == 1 and hasattr(result, "shape"):
            seen[context.module.name] = result.shape
        return result

    with nn.intercept_methods(record):
        template(TINY)
    assert [name for name in seen if name.startswith(("down", "up"))] == [
        "down_0_downsample", "down_0_combined", "down_0_block_0",
        "down_1_downsample", "down_1_combined", "down_1_block_0", "down_1_block_1", "down_1_attention",
        "up_1_combined", "up_1_block_0", "up_1_block_1", "up_1_attention", "up_1_upsample",
        "up_0_combined", "up_0_block_0", "up_0_upsample",
    ]  # fmt: skip
    assert seen["input_conv"] == (2, 8, 4, 4)
    assert seen["down_0_block_0"] == seen["up_0_block_0"] == (2, 4, 2, 4)
    assert seen["down_1_block_0"] == seen["up_1_block_0"] == (2, 2, 1, 8)
    assert seen["up_0_combined"] == (2, 4, 2, 8 + 4)
    assert seen["up_0_upsample"] == (2, 8, 4, 4)


def test_the_text_matters_a_token_that_is_withheld_does_not_and_skips_are_scaled():
    model = TINY.clone(embed={})  # without the vector of the whole text, which no mask reaches
    leaves, rng = traverse_util.flatten_dict(template(model)), np.random.default_rng(2)
    params = {name: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32) for name, leaf in leaves.items()}
    params = traverse_util.unflatten_dict(params)

    across = []

    def record(next_call, args, kwargs, context):
        result = next_call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.name in ("down_0_block_0", "up_0_combined"):
            across.extend([result] if context.module.name == "down_0_block_0" else args[:1])
        return result

    @jax.jit
    def apply(tokens, mask):
        with nn.intercept_methods(record):
            out = model.apply({"params": params}, X, TIME, {"tokens": tokens, "token_mask": mask})
        return out, *across

    tokens, mask = TOKENS["tokens"], np.array([[1, 1, 0], [1, 1, 1]], bool)
    out, level, joined = apply(tokens, mask)
    assert out.shape == (2, 8, 4, 3)
    np.testing.assert_allclose(joined[..., 8:], level / np.sqrt(2), rtol=1e-6)
    changed = tokens.copy()
    changed[:, 2] += 1
    other, *_ = apply(changed, mask)
    np.testing.assert_array_equal(other[0], out[0])
    assert np.abs(other[1] - out[1]).max() > 1e-3


def test_what_does_not_fit_is_named_in_one_line():
    with pytest.raises(InputError, match="images of 6x8: height and width must be multiples of 4 for 2 levels"):
        template(TINY, jnp.zeros((1, 6, 8, 3)))
    with pytest.raises(InputError, match="text_only_levels: 9; levels run from 0 to 2"):
        template(TINY.clone(text_only_levels=(9,)))
