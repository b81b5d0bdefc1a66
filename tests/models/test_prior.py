"""unCLIP's prior and the projections of its decoder: what they read, how they start, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.encoders.text_projection import TextProjection
from diffusion_jax.models.transformers.prior import PriorTransformer
from diffusion_jax.models.unets.of_embeddings import OfEmbeddings
from diffusion_jax.pretrained.families import prior as families

ROWS, FEATURES, BATCH = 5, 6, 3
MODEL = PriorTransformer(tokens=ROWS, features=16, layers=2, heads=2)
RNG = np.random.default_rng(0)
MASK = np.arange(ROWS) < np.array([[2], [5], [1]])
TOLD = {
    "text_embedding": RNG.normal(size=(BATCH, 4)).astype(np.float32),
    "tokens": RNG.normal(size=(BATCH, ROWS, 7)).astype(np.float32),
    "token_mask": MASK,
}
X, TIME = RNG.normal(size=(BATCH, FEATURES)).astype(np.float32), np.array([0.0, 400.0, 999.0])


def init(model, *inputs):
    return model.init(jax.random.key(0), *inputs)["params"]


@pytest.fixture(scope="module")
def params():
    """Every weight at random."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: init(MODEL, X, TIME, TOLD))
    return jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def evaluate(params):
    return jax.jit(lambda x, time, cond: MODEL.apply({"params": params}, x, time, cond))


def moved(a, b):
    """By how much each example differs."""
    return np.abs(np.asarray(a) - b).max(axis=-1)


def test_a_prior_hears_all_that_it_is_told_and_no_padding(evaluate):
    said = evaluate(X, TIME, TOLD)
    assert said.shape == X.shape
    for x, time, cond in [
        (X + 1, TIME, TOLD),
        (X, TIME + 7, TOLD),
        (X, TIME, TOLD | {"text_embedding": TOLD["text_embedding"] + 1}),
        (X, TIME, TOLD | {"tokens": TOLD["tokens"] + 1}),
    ]:
        assert (moved(evaluate(x, time, cond), said) > 1e-3).all()
    padded = TOLD | {"tokens": np.where(MASK[..., None], TOLD["tokens"], 9.0)}
    np.testing.assert_array_equal(evaluate(X, TIME, padded), said)
    without = {name: value for name, value in TOLD.items() if name != "token_mask"}
    everywhere = evaluate(X, TIME, without)
    assert (moved(evaluate(X, TIME, without | {"tokens": padded["tokens"]}), everywhere)[[0, 2]] > 1e-3).all()
    assert moved(everywhere, said)[1] > 1e-3  # not causal, where all is text


def test_it_starts_as_almost_nothing():
    start = jax.jit(lambda: MODEL.apply({"params": init(MODEL, X, TIME, TOLD)}, X, TIME, TOLD))
    assert np.abs(start()).max() < 1e-3


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ({"tokens": TOLD["tokens"]}, "needs the condition 'text_embedding'"),
        (TOLD | {"label": TIME}, "knows no condition 'label'"),
        (TOLD | {"tokens": TOLD["tokens"][:, :3]}, "a text of 3 rows: this prior reads 5; pad or cut it"),
    ],
)
def test_what_it_is_not_made_for_is_refused(cond, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda: init(MODEL, X, TIME, cond))


def test_a_learned_embedding_stands_for_an_image_that_is_withheld():
    model = TextProjection(extra=2, features=8, width=3)
    told = X, TOLD["text_embedding"], TOLD["tokens"], MASK
    params = init(model, *told)
    withheld = np.array([True, False, False])
    found = model.apply({"params": params}, *told, withheld)
    shown = model.apply({"params": params}, *told)
    replaced = model.apply({"params": params}, np.where(withheld[:, None], params["null"], X), *told[1:])
    assert found["tokens"].shape == (BATCH, 2 + ROWS, 8)
    for name in ("tokens", "vector"):
        np.testing.assert_array_equal(found[name], replaced[name])
        np.testing.assert_array_equal(found[name][1:], shown[name][1:])
    assert np.abs(found["tokens"][0, :2] - shown["tokens"][0, :2]).max() > 1e-2
    np.testing.assert_array_equal(found["tokens"][0, 2:], shown["tokens"][0, 2:])
    np.testing.assert_array_equal(found["token_mask"], np.concatenate([np.ones((BATCH, 2), bool), MASK], axis=1))


PROJECTION = {"time_embed_dim": 8, "cross_attention_dim": 8}
REFUSED = [
    (families.prior, {"norm_in_type": "layer"}, "norm_in_type = 'layer' is not supported; only None"),
    (families.prior, {"embedding_proj_norm_type": "layer"}, "embedding_proj_norm_type = 'layer'"),
    (families.prior, {"encoder_hid_proj_type": None}, "encoder_hid_proj_type = None is not supported; only 'linear'"),
    (families.prior, {"added_emb_type": None}, "added_emb_type = None"),
    (families.prior, {"additional_embeddings": 0}, "additional_embeddings = 0"),
    (families.prior, {"time_embed_act_fn": "gelu"}, "time_embed_act_fn = 'gelu'"),
    (families.prior, {"time_embed_dim": 1024}, "time_embed_dim = 1024 is not supported; only None or 2048"),
    (families.prior, {"clip_embed_dim": 512}, "clip_embed_dim = 512 is not supported; only None or 768"),
    (families.prior, {"dropout": 0.1}, "dropout = 0.1"),
    (families.prior, {"num_layers": 10**6}, "num_layers = 1000000"),
    (families.prior, {"attention_head_dim": 1, "num_attention_heads": 3}, "an even width of at least 4"),
    (families.prior, {"something_new": 1}, "PriorTransformer: something_new = 1"),
    (families.text_projection, {"time_embed_dim": 8}, "cross_attention_dim = None is not supported; an integer"),
    (families.text_projection, PROJECTION | {"clip_extra_context_tokens": 0}, "clip_extra_context_tokens = 0"),
]


@pytest.mark.parametrize(("build", "config", "message"), REFUSED)
def test_values_that_are_not_known_are_named(build, config, message):
    with pytest.raises(InputError) as raised:
        build(config)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_decoder_hears_no_picture_where_its_embedding_is_not_finite():
    class Answer(nn.Module):
        def __call__(self, x, time, cond, dropout_keys=None):
            return x + cond["vector"].sum(-1)[:, None] + cond["tokens"].sum((1, 2))[:, None]

    model = OfEmbeddings(TextProjection(extra=2, features=4, width=3), Answer())
    keys = jax.random.split(jax.random.key(0), 3)
    told = {"text_embedding": jax.random.normal(keys[0], (2, 5)), "tokens": jax.random.normal(keys[1], (2, 3, 6))}
    told |= {"token_mask": jnp.ones((2, 3), bool), "image_embedding": jax.random.normal(keys[2], (2, 5))}
    params = model.init(jax.random.key(1), jnp.zeros((2, 1)), jnp.zeros(2), told)
    null = params["params"]["project"]["null"]
    withheld = told | {"image_embedding": told["image_embedding"].at[1, 2].set(jnp.nan)}
    expected = told | {"image_embedding": told["image_embedding"].at[1].set(null)}
    out = [model.apply(params, jnp.zeros((2, 1)), jnp.zeros(2), cond) for cond in (withheld, expected, told)]
    np.testing.assert_allclose(out[0], out[1], rtol=1e-6)
    assert abs(out[0] - out[2])[1] > 1e-3
    with pytest.raises(InputError, match="needs the condition 'tokens'"):
        model.apply(params, jnp.zeros((2, 1)), jnp.zeros(2), {k: x for k, x in told.items() if k != "tokens"})
