"""Imagen's base in small: what is read of a caption, what guidance withholds, and how estimates are bound."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffusion_jax import config
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import captions, sources
from diffusion_jax.methods import imagen
from diffusion_jax.models.encoders.told_texts import ToldTexts

CONFIG = Path(__file__).parents[2] / "configs" / "imagen_base.py"


class Table(nn.Module):
    """A row of its own for each id."""

    @nn.compact
    def __call__(self, ids, mask):
        return nn.Embed(captions.WORDS.size, 2, embedding_init=nn.initializers.normal(1.0), name="rows")(ids)


class Answer(nn.Module):
    """What it is told, in place of an estimate."""

    def __call__(self, x, time, cond, dropout_keys=None):
        assert set(cond) == {"pooled"}
        return x + cond["pooled"]


@pytest.fixture(scope="module")
def told():
    ids, mask = captions.WORDS.encode(["a thick seven", "one", ""])
    model = ToldTexts(Table(), Answer())
    cond = {"ids": jnp.asarray(ids), "mask": jnp.asarray(mask)}
    return model, model.init(jax.random.key(0), jnp.zeros((3, 2)), jnp.zeros(3), cond), cond


def test_a_text_is_told_as_the_mean_of_its_tokens_and_padding_is_not_read(told):
    model, params, cond = told
    out = model.apply(params, jnp.zeros((3, 2)), jnp.zeros(3), cond)
    rows = np.asarray(params["params"]["text"]["rows"]["embedding"])
    ids, mask = (np.asarray(cond[name]) for name in ("ids", "mask"))
    expected = [rows[ids[i][mask[i]]].mean(0) for i in range(3)]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    padded = cond | {"ids": jnp.where(cond["mask"], cond["ids"], 5)}
    np.testing.assert_array_equal(model.apply(params, jnp.zeros((3, 2)), jnp.zeros(3), padded), out)
    none = cond | {"mask": jnp.zeros_like(cond["mask"])}
    np.testing.assert_array_equal(model.apply(params, jnp.zeros((3, 2)), jnp.zeros(3), none), 0)
    with pytest.raises(InputError, match="needs the condition 'mask'"):
        model.apply(params, jnp.zeros((3, 2)), jnp.zeros(3), {"ids": cond["ids"]})


def test_the_encoder_learns_with_the_network(told):
    model, params, cond = told
    slope = jax.grad(lambda params: model.apply(params, jnp.zeros((3, 2)), jnp.zeros(3), cond).sum())(params)
    rows = np.asarray(slope["params"]["text"]["rows"]["embedding"])
    read = np.unique(np.asarray(cond["ids"])[np.asarray(cond["mask"])])
    np.testing.assert_array_equal(np.flatnonzero(np.abs(rows).sum(-1)), read)


def test_guidance_withholds_the_words_and_estimates_are_thresholded():
    values = config.load(CONFIG).get_config()
    values.text.threshold = 10.0
    method = imagen.method(values, sources.digits)
    (cond,) = method.data.sample_condition(2, {"prompt": np.array(["a thick seven", "one"])})
    (empty,), _ = captions.WORDS.encode([""])

    def denoise(x, t, cond):  # 3 where it is told the empty text, else 4
        said = jnp.where((cond["ids"] == empty).all(-1), 3.0, 4.0)[:, None]
        return Gaussian(jnp.broadcast_to(said, x.shape) * jnp.asarray([1.0, 0.5]))

    guided = method.guide(3.0)(denoise, cond)
    np.testing.assert_allclose(guided(jnp.zeros((2, 2)), jnp.ones(2)).mean, [[6.0, 3.0]] * 2)  # 3 + 3 (4 - 3)
    (transform,) = method.chains["ddim"]().transforms
    bound = transform(guided)(jnp.zeros((2, 2)), jnp.ones(2)).mean
    np.testing.assert_allclose(bound, [[1.0, 0.5]] * 2, atol=4e-3)  # of a clip it would be 1 and 1
    with pytest.raises(InputError, match="the word 'cat' is unknown"):
        method.data.sample_condition(1, {"prompt": np.array(["a cat"])})
