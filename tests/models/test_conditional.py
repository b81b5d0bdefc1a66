"""The U-Nets that are told something: sizes, what they listen to, recomputation, and a ControlNet's beginning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from diffusion_jax.core import resizing
from diffusion_jax.core.errors import InputError
from diffusion_jax.models import ADMUNet, ImprovedUNet, TextUNet, UNet
from diffusion_jax.models.blocks.conditioning import (
    GuidanceEmbedding,
    LabelEmbedding,
    NumberEmbedding,
    OptionalNumberEmbedding,
)
from diffusion_jax.models.judges.classifier import Classifier
from diffusion_jax.models.ops.attention import flash
from diffusion_jax.models.unets.adm import heads_of_width
from diffusion_jax.models.unets.controlnet import Controlled, ControlNet, HintEncoder, from_base
from diffusion_jax.models.unets.label_tokens import LabelTokens
from diffusion_jax.models.unets.super_resolution import SuperResolution

pytestmark = pytest.mark.slow

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_levels": (1,), "groups": 4, "out_channels": 2}
HEADS = {"heads": heads_of_width(4)}
LABELS = {"label": LabelEmbedding(4)}
X = np.random.default_rng(0).normal(size=(2, 4, 8, 2)).astype(np.float32)
TIME = np.array([3, 700])
LABEL = {"label": np.array([0, 3])}
TOKENS = {"tokens": np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)}
HINT = {"hint": np.random.default_rng(2).normal(size=(2, 8, 16, 3)).astype(np.float32)}

NETWORKS = {
    "DDPM's": (UNet(**SMALL, embed=LABELS), LABEL),
    "ADM's": (ADMUNet(**SMALL, **HEADS, embed=LABELS), LABEL),
    "Improved DDPM's": (ImprovedUNet(**SMALL, **HEADS, embed=LABELS), LABEL),
    "of texts": (TextUNet(**SMALL, **HEADS), TOKENS),
}


def shapes(model, x, cond):
    return jax.eval_shape(model.init, jax.random.key(0), x, jnp.zeros(x.shape[0]), cond)["params"]


def size(model, side, channels, cond=None):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, jnp.zeros((1, side, side, channels)), cond)))


def at_random(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (0.3 * rng.normal(size=x.shape)).astype(np.float32), tree)


def test_published_numbers_of_parameters():
    text = {"tokens": jnp.zeros((1, 77, 768))}
    hint = text | {"hint": jnp.zeros((1, 512, 512, 3))}
    assert size(ADMUNet(embed={"label": LabelEmbedding(1000)}), 64, 3, {"label": jnp.zeros(1, int)}) == 295_904_454
    assert size(ImprovedUNet(), 32, 3) == 52_546_438
    assert size(TextUNet(), 64, 4, text) == 859_520_964
    assert size(ControlNet(TextUNet(), HintEncoder()), 64, 4, hint) == 361_279_120


@pytest.mark.parametrize(("model", "cond"), NETWORKS.values(), ids=NETWORKS)
def test_what_is_told_is_heard_by_its_own_example(model, cond):
    params = at_random(shapes(model, X, cond))
    apply = jax.jit(lambda cond: model.apply({"params": params}, X, TIME, cond))
    out = apply(cond)
    assert out.shape == X.shape
    (name,) = cond
    changed = np.array(cond[name])
    changed[1] = 1 if name == "label" else changed[1] + 1
    other = apply({name: changed})
    np.testing.assert_array_equal(other[0], out[0])
    assert np.abs(other[1] - out[1]).max() > 1e-3
    with pytest.raises(InputError, match=f"needs the condition '{name}'; it was given none"):
        jax.eval_shape(apply, None)
    with pytest.raises(InputError, match=f"knows no condition 'colour'; it takes '{name}'"):
        jax.eval_shape(apply, cond | {"colour": changed})


@pytest.mark.parametrize("name", ["ADM's", "of texts"])
def test_recomputing_changes_no_number(name):
    model, cond = NETWORKS[name]
    model = model.clone(multipliers=(1,), attention_levels=())
    params = at_random(shapes(model, X, cond))

    def gradient(model):
        def loss(params):
            return (model.apply({"params": params}, X, TIME, cond) ** 2).mean()

        return jax.jit(jax.value_and_grad(loss))

    plain, saved = gradient(model), gradient(model.clone(wrap=nn.remat))
    for a, b in zip(jax.tree.leaves(plain(params)), jax.tree.leaves(saved(params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    # Control: it is recomputed, that is, there are more convolutions.
    count = [str(jax.make_jaxpr(f)(params)).count("conv3x3") for f in (plain, saved)]
    assert count[1] > count[0]


def test_a_label_beyond_the_table_is_nan():
    model = LabelEmbedding(4)
    params = model.init(jax.random.key(0), jnp.zeros(1, int), 8)
    out = model.apply(params, jnp.array([3, 4, -1]), 8)
    assert np.isnan(out).any(axis=1).tolist() == [False, True, True]


def test_a_label_is_read_as_the_token_that_it_has():
    network, cond = NETWORKS["of texts"]
    network = network.clone(multipliers=(1,), attention_levels=(0,))
    model = LabelTokens(network, rows=4, features=6)
    params = at_random(shapes(model, X, LABEL))
    told = {"tokens": params["embed_label"]["embedding"][LABEL["label"]][:, None]}

    @jax.jit
    def both(params):
        inner = network.apply({"params": params["network"]}, X, TIME, told)
        return model.apply({"params": params}, X, TIME, LABEL), inner

    out, wanted = both(params)
    np.testing.assert_array_equal(out, wanted)
    with pytest.raises(InputError, match="needs the condition 'label'"):
        jax.eval_shape(lambda: model.apply({"params": params}, X, TIME, cond))
    latents = {"channels": 256, "multipliers": (1, 2, 4), "attention_levels": (0, 1, 2), "out_channels": 4}
    published = LabelTokens(TextUNet(**latents, heads=heads_of_width(32)), 1001)
    assert size(published, 32, 4, {"label": jnp.zeros(1, int)}) == 395_496_708  # latent diffusion's of ImageNet


@pytest.mark.exhaustive
def test_numbers_are_embedded_like_the_time():
    model = UNet(**SMALL, embed={"noise_level": NumberEmbedding()})
    cond = {"noise_level": jnp.array([0.0, 500.0])}
    params = at_random(shapes(model, X, cond))
    out = model.apply({"params": params}, X, TIME, cond)
    other = model.apply({"params": params}, X, TIME, {"noise_level": jnp.array([0.0, 100.0])})
    np.testing.assert_array_equal(out[0], other[0])
    assert np.abs(out[1] - other[1]).max() > 1e-3


def test_a_number_may_be_withheld():
    model, values = OptionalNumberEmbedding(scale=1000.0), jnp.array([0.5, jnp.nan, 0.2])
    params = model.init(jax.random.key(0), values, 16)["params"]
    out, slope = jax.value_and_grad(lambda p: model.apply({"params": p}, values, 16).sum())(params)
    assert np.isfinite(out)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    out = model.apply({"params": params}, values, 16)
    np.testing.assert_array_equal(out[1], params["none"])
    plain = NumberEmbedding().apply({"params": params["number"]}, 1000 * values[::2], 16)
    np.testing.assert_allclose(out[::2], plain, rtol=1e-6)
    assert np.abs(plain[0] - plain[1]).max() > 1e-2


def test_a_network_that_is_told_the_scale_of_guidance_starts_as_it_was():
    model = UNet(**SMALL, embed_early={"guidance_scale": GuidanceEmbedding(8)})
    cond = {"guidance_scale": jnp.array([1.0, 5.5])}
    params = at_random(shapes(model, X, cond))
    zero = GuidanceEmbedding(8).init(jax.random.key(0), cond["guidance_scale"], 8)["params"]
    assert not np.any(zero["dense"]["kernel"])
    apply = jax.jit(model.apply)
    rest = {name: value for name, value in params.items() if name != "embed_early_guidance_scale"}
    plain = UNet(**SMALL).apply({"params": rest}, X, TIME)
    start = apply({"params": params | {"embed_early_guidance_scale": zero}}, X, TIME, cond)
    np.testing.assert_allclose(start, plain, rtol=1e-5, atol=1e-5)
    told = [apply({"params": params}, X, TIME, {"guidance_scale": jnp.array([1.0, g])}) for g in (5.5, 6.0)]
    np.testing.assert_array_equal(told[0][0], told[1][0])
    assert np.abs(told[0][1] - told[1][1]).max() > 1e-3
    with pytest.raises(InputError, match="needs the condition 'guidance_scale'"):
        jax.eval_shape(model.apply, {"params": params}, X, TIME)


def test_a_low_resolution_image_is_laid_beside():
    """A network that returns its input shows what it was given: x, and the small image enlarged."""

    class Mirror(nn.Module):
        @nn.compact
        def __call__(self, x, time, cond=None, dropout_keys=None):
            return x

    small = np.random.default_rng(3).normal(size=(2, 2, 4, 2)).astype(np.float32)
    out = SuperResolution(Mirror()).apply({}, X, TIME, {"low_res": small})
    np.testing.assert_array_equal(out[..., :2], X)
    assert out.shape == (2, 4, 8, 4)
    # Bilinear, pixels as squares: a quarter of the way to the next one.
    inside = 0.75 * small[0, 0, 0, 0] + 0.25 * small[0, 0, 1, 0]
    np.testing.assert_allclose(out[0, 0, 1, 2], inside, rtol=1e-5)
    cornered = SuperResolution(Mirror(), resizing.aligned).apply({}, X, TIME, {"low_res": small})
    np.testing.assert_array_equal(cornered[:, ::3, ::7, 2:], small[:, ::1, ::3])  # corners keep their place
    with pytest.raises(InputError, match="low_res"):
        SuperResolution(Mirror()).apply({}, X, TIME, {})


@pytest.mark.parametrize("name", ["DDPM's", "of texts"])
@pytest.mark.exhaustive
def test_a_controlnet_starts_as_its_base_and_hears_its_hint(name):
    model, cond = NETWORKS[name]
    both = Controlled(model, HintEncoder((4, 6)))
    told = cond | HINT
    params = jax.jit(lambda key: both.init(key, X, TIME, told)["params"])(jax.random.key(0))
    params = from_base(params | {"unet": at_random(params["unet"])})
    for name, value in traverse_util.flatten_dict(params["control"], sep="/").items():
        if not name.startswith(("hint", "control_")):
            np.testing.assert_array_equal(value, traverse_util.flatten_dict(params["unet"], sep="/")[name])

    apply = jax.jit(lambda params, told: both.apply({"params": params}, X, TIME, told))
    alone = jax.jit(lambda params: model.apply({"params": params}, X, TIME, cond))(params["unet"])
    np.testing.assert_array_equal(apply(params, told), alone)

    # Once its last layers have moved, every part of the hint is heard.
    moved = params | {"control": at_random(params["control"], 1)}
    out = apply(moved, told)
    assert np.abs(out - alone).max() > 1e-2
    other = apply(moved, cond | {"hint": np.flip(HINT["hint"], axis=0)})
    assert (np.abs(other - out).max((1, 2, 3)) > 1e-4).all()


def test_a_hint_of_another_size_is_refused():
    both = Controlled(UNet(**SMALL), HintEncoder((4, 6)))
    with pytest.raises(InputError, match="this encoder takes 8x16"):
        jax.eval_shape(both.init, jax.random.key(0), X, TIME, {"hint": jnp.zeros((2, 4, 8, 3))})
    with pytest.raises(InputError, match="needs the condition 'hint'; it was given none"):
        jax.eval_shape(both.init, jax.random.key(0), X, TIME, {})


def test_a_classifier_starts_undecided():
    model = Classifier(ADMUNet(**SMALL, **HEADS), classes=5)
    params = jax.jit(model.init)(jax.random.key(0), X, TIME)["params"]
    assert not any(name.startswith("up_") for name in params)
    logits = model.apply({"params": params}, X, TIME)
    np.testing.assert_array_equal(logits, np.zeros((2, 5)))
    logits = model.apply({"params": at_random(params)}, X, TIME)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2


def test_heads_must_divide():
    with pytest.raises(InputError, match="10 features do not divide into heads of 4"):
        heads_of_width(4)(10)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_attention_is_computed_as_the_network_says(name):
    """By shapes: the middle's and those of level 1, each of them; with cuDNN's, a CPU says in one line what to do."""
    model, cond = NETWORKS[name]
    seen = []

    def attend(query, key, value):
        seen.append((query.shape, key.shape))
        return jax.nn.dot_product_attention(query, key, value)

    shapes(model.clone(attend=attend), X, cond)
    looks = 2 if name == "of texts" else 1  # at itself, and at the text
    assert len(seen) == looks * 4
    with pytest.raises(InputError, match=r"cuDNN's attention cannot run here .*model\.flash"):
        shapes(model.clone(attend=flash), X, cond)
