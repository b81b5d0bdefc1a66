"""Encoders of texts and pictures: who reads whom, which row stands for the text, and how pictures are prepared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.encoders import clip, images, t5

TEXT = clip.TextTransformer(vocab=20, positions=8, features=16, hidden=24, layers=2, heads=2, projection=6)
VISION = clip.VisionTransformer(grid=(2, 3), patch=2, features=16, hidden=24, layers=1, heads=2, projection=6)
T5 = t5.T5Encoder(vocab=20, features=16, width=4, hidden=24, layers=2, heads=2, buckets=8, farthest=5)
IDS = np.array([[5, 3, 9, 19, 2, 1, 1, 1], [5, 19, 7, 2, 2, 2, 4, 6]])
CLOSE = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def drawn(model, *shown):
    """Parameters at random: where they start, positions and biases are small or 0, which would hide a fault."""
    rng = np.random.default_rng(0)
    template = jax.eval_shape(model.init, jax.random.key(0), *shown)
    return jax.tree.map(lambda p: rng.normal(scale=0.4, size=p.shape).astype(np.float32), template)


@pytest.fixture(scope="module")
def text():
    """`(ids, mask) -> Encoded`, compiled once."""
    return jax.jit(functools.partial(TEXT.apply, drawn(TEXT, IDS)))


def test_a_row_of_clip_knows_what_is_before_it(text):
    mask = np.ones(IDS.shape, bool)
    whole = text(IDS, mask)
    changed = text(np.where(np.arange(8) < 5, IDS, 11), mask)
    for a, b in zip(whole.states, changed.states, strict=True):
        CLOSE(a[:, :5], b[:, :5])
    assert np.abs(whole.final - changed.final)[:, 5:].max() > 0.1
    assert len(whole.states) == 3


def test_what_is_masked_no_other_row_reads(text):
    mask = np.ones(IDS.shape, bool)
    mask[:, 2] = False
    changed = IDS.copy()
    changed[:, 2] = 12
    others = [0, 1, 3, 4, 5, 6, 7]
    CLOSE(text(IDS, mask).final[:, others], text(changed, mask).final[:, others])
    seen = np.ones(IDS.shape, bool)
    assert np.abs(text(IDS, seen).final - text(changed, seen).final)[:, others].max() > 0.02


def test_which_row_stands_for_a_text(text):
    np.testing.assert_array_equal(clip.at_largest(IDS), [3, 1])
    np.testing.assert_array_equal(clip.at_first(2)(IDS), [4, 3])
    np.testing.assert_array_equal(clip.at_first(9)(IDS), [2, 0])  # the second has none
    found = text(IDS, np.ones(IDS.shape, bool))
    assert found.pooled.shape == (2, 6)
    with pytest.raises(AssertionError):
        CLOSE(found.pooled[0], found.pooled[1])


def test_an_id_beyond_the_vocabulary_is_seen(text):
    for beyond in (20, -1):
        ids = IDS.copy()
        ids[1, 3] = beyond
        finite = np.isfinite(text(ids, np.ones(IDS.shape, bool)).final).all((1, 2))
        np.testing.assert_array_equal(finite, [True, False])


def test_clip_compares_directions():
    model = clip.CLIP(TEXT, VISION)
    pictures = np.random.default_rng(1).normal(size=(3, 4, 6, 3)).astype(np.float32)

    params = drawn(model, IDS, pictures)["params"]

    @jax.jit
    def found(params):
        logits = model.apply({"params": params}, IDS, pictures)
        of_text = TEXT.apply({"params": params["text"]}, IDS).pooled
        of_image = VISION.apply({"params": params["vision"]}, pictures)
        return logits, of_text, of_image

    logits, of_text, of_image = found(params | {"log_scale": np.log(np.float32(5))})
    cosines = clip.unit(of_image.embedding) @ clip.unit(of_text).T
    CLOSE(logits, 5 * cosines)
    assert logits.shape == (3, 2)
    assert np.abs(cosines).max() <= 1 + 1e-6
    start = jax.jit(lambda key: model.init(key, IDS, pictures)["params"]["log_scale"])(jax.random.key(0))
    assert float(start) == pytest.approx(2.6592, abs=1e-4)
    assert of_image.last.shape == (3, 1 + 6, 16)


def test_a_row_of_t5_knows_all_that_is_shown():
    """What is masked may as well not be there: places are told by distances alone."""
    encode = jax.jit(functools.partial(T5.apply, drawn(T5, IDS)))
    all_of, first = np.ones(IDS.shape, bool), np.broadcast_to(np.arange(8) < 5, IDS.shape)
    masked, whole, cut = encode(IDS, first), encode(IDS, all_of), encode(IDS[:, :5], all_of[:, :5])
    CLOSE(masked[:, :5], cut)
    assert np.abs(whole[:, :5] - cut).max() > 0.1
    assert np.isfinite(encode(IDS, ~all_of)).all()  # of an empty text too


def test_places_of_t5():
    """From the definition: one distance each up to 3, then by the logarithm up to 16, of both directions."""
    found = t5.buckets(40, 16, 16)[0]
    # Bucket 4 + floor(4 ln(n / 4) / ln 4) begins at n = 4, 5.66, 8 and 11.3.
    wanted = [0, *(8 + n for n in (1, 2, 3)), *[12] * 2, *[13] * 2, *[14] * 4, *[15] * 28]
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(t5.buckets(40, 16, 16)[-1], [0 if n == 0 else n - 8 for n in wanted][::-1])


def test_what_does_not_fit_is_named():
    def traced(model, *shown):
        return jax.eval_shape(model.init, jax.random.key(0), *shown)

    long, large = np.zeros((1, 9), int), np.zeros((1, 4, 4, 3), np.float32)
    with pytest.raises(InputError, match="a text of 9 tokens: this encoder reads at most 8; cut it"):
        traced(TEXT, long)
    with pytest.raises(InputError, match="a picture of 4x4 pixels: this encoder sees 4x6; resize it"):
        traced(VISION, large)
    with pytest.raises(InputError, match="overflow float16; take bfloat16"):
        traced(T5.clone(dtype=jnp.float16), IDS)
    for other in (VISION.clone(projection=None), VISION.clone(projection=5)):
        with pytest.raises(InputError, match="give both the same projection"):
            traced(clip.CLIP(TEXT, other), IDS, np.zeros((1, 4, 6, 3), np.float32))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_encoders_compute_in_other_dtypes(dtype, x64):
    """Without rank promotion, and nothing is narrowed on the way."""
    with jax.numpy_rank_promotion("raise"):
        for model in (TEXT.clone(dtype=dtype), T5.clone(dtype=dtype)):
            params = jax.eval_shape(model.init, jax.random.key(0), IDS)
            found = jax.eval_shape(model.apply, params, IDS, np.ones(IDS.shape, bool))
            assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
        shown = jnp.zeros((1, 4, 6, 3))
        vision = VISION.clone(dtype=dtype)
        found = jax.eval_shape(vision.apply, jax.eval_shape(vision.init, jax.random.key(0), shown), shown)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}


# ---- Pictures.


@pytest.mark.parametrize("size", [(50, 78), (19, 13)], ids=["smaller", "larger"])
@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_pictures_are_resized_as_pillow_does(size, kind):
    """But for Pillow's rounding after each axis: 0.3 of a level in the mean, 1.1 at most, of noise too."""
    side, rng = 24, np.random.default_rng(0)
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    if kind == "smooth":
        picture = np.asarray(Image.fromarray(picture[:5, :5]).resize(size[::-1], Image.Resampling.BICUBIC))
    short = min(size)
    wanted = (side * size[1] // short, side * size[0] // short)
    theirs = np.asarray(Image.fromarray(picture).resize(wanted, Image.Resampling.BICUBIC))
    ours = images.resized(jnp.asarray(picture[None] / np.float32(127.5) - 1), side)[0]
    off = np.abs((np.asarray(ours) + 1) * 127.5 - theirs)
    assert off.max() < 1.3
    assert off.mean() < 0.4

    top, left = ((length - side) // 2 for length in theirs.shape[:2])
    cut = theirs[top : top + side, left : left + side] / 255
    wanted = (cut - np.array(images.MEAN)) / np.array(images.STD)
    found = images.prepared(jnp.asarray(picture[None] / np.float32(127.5) - 1), side)[0]
    assert np.abs(found - wanted).max() < 1.3 / 255 / min(images.STD)
