"""Imagen in small: what is read of a caption, what guidance withholds, how estimates are bound, and the cascade."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import config
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import captions, sources
from diffusion_jax.diffusion import stages
from diffusion_jax.methods import captioned, compose, imagen, imagen_super_resolution, runs, staged
from diffusion_jax.training.experiment import SampleRequest

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = {"channels": 8, "groups": 4, "multipliers": (1,), "attention_levels": (0,)}
NUM = 2


def tiny(name):
    """The config of that name with networks of a few features."""
    values = config.load(CONFIGS / f"{name}.py").get_config()
    values.model.update(TINY)
    values.text.update(features=8, layers=1, heads=2)
    return values


def redrawn(shapes):
    """Parameters, of layers that start at zero too."""
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([0.3 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)])


@pytest.fixture(scope="module")
def base():
    """(values, method, parameters, its condition of a text of two words and of one without)."""
    values = tiny("imagen_base")
    method = imagen.method(values, sources.digits)
    params = redrawn(imagen_super_resolution.template(method.model, (8, 8, 1)))
    ids, mask = captions.WORDS.encode(["thick seven", ""])
    return values, method, params, {"ids": jnp.asarray(ids), "mask": jnp.asarray(mask)}


def test_padding_is_not_read_and_words_are(base):
    _, method, params, cond = base
    x = jax.random.normal(jax.random.key(2), (NUM, 8, 8, 1))

    @jax.jit
    def said(ids):
        return method.model.apply({"params": params}, x, jnp.full(NUM, 500.0), cond | {"ids": ids})

    out = said(cond["ids"])
    np.testing.assert_array_equal(said(jnp.where(cond["mask"], cond["ids"], 5)), out)
    assert (np.abs(said(cond["ids"].at[:, 0].set(5)) - out).max((1, 2, 3)) > 1e-3).all()
    with pytest.raises(InputError, match="needs the condition 'mask'"):
        jax.eval_shape(method.model.apply, {"params": params}, x, jnp.ones(NUM), {"ids": cond["ids"]})


def test_the_encoder_learns_with_the_network(base):
    _, method, params, cond = base
    x = jax.random.normal(jax.random.key(2), (NUM, 8, 8, 1))

    @jax.jit
    @jax.grad
    def slope(params):
        return method.model.apply({"params": params}, x, jnp.full(NUM, 500.0), cond).sum()

    rows = np.asarray(slope(params)["text"]["tokens"])
    read = np.unique(np.asarray(cond["ids"])[np.asarray(cond["mask"])])
    np.testing.assert_array_equal(np.flatnonzero(np.abs(rows).sum(-1)), read)


def test_a_text_that_is_encoded_once_is_one_that_is_encoded_at_every_step(base):
    values, method, params, cond = base
    keys = rng.per_example(rng.root(0), jnp.arange(NUM))
    once = imagen.build(values, sources.digits).sampling.samplers["ddim"]
    always = compose.compose(values, method).sampling.samplers["ddim"]
    for scale in (1.0, 2.0):
        request = SampleRequest(NUM, steps=3, guidance_scale=scale)
        drawn, expected = (jax.jit(make(request))(params, keys, cond) for make in (once, always))
        np.testing.assert_allclose(drawn, expected, atol=1e-5)
    other = jax.jit(once(request._replace(guidance_scale=1.0)))(params, keys, cond)
    assert np.abs(other - drawn)[0].max() > 1e-3


def test_guidance_withholds_the_words_and_estimates_are_thresholded():
    values = config.load(CONFIGS / "imagen_base.py").get_config()
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


# ---- The cascade.


@pytest.fixture(scope="module")
def cascade():
    """`(changed values, scale of guidance) -> (stages, parameters, what is given)` of a tiny one, 8x8 to 16x16."""

    def values(**changed):
        values = tiny("imagen_super_resolution")
        values.data.shape = (16, 16, 1)
        values.base.update(TINY, steps=2)
        values.update_from_flattened_dict(changed)
        return values

    def enlarged(data_dir="", shrink=1):
        return sources.digits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioned, "mnist", enlarged)

        @cache
        def params():
            chosen = values()
            method = imagen_super_resolution.cascade(chosen)[1]
            data = SimpleNamespace(shape=(8, 8, 1))
            model = imagen.reading(SimpleNamespace(model=chosen.base, text=chosen.text, data=data))
            base = imagen_super_resolution.template(model, (8, 8, 1))
            told = {"tokens": jnp.zeros((1, 4, 8)), "token_mask": jnp.ones((1, 4), bool)}
            low = {"low_res": jnp.zeros((1, 8, 8, 1)), "noise_level": jnp.zeros(1)}
            upper = jax.eval_shape(
                method.model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)), jnp.zeros(1), told | low
            )
            return redrawn({"text": base["text"], "base": base["network"], "super_resolution": upper["params"]})

        ids, mask = captions.WORDS.encode(["a thick seven", "one"])
        given = {"ids": jnp.asarray(ids), "mask": jnp.asarray(mask), "noise_level": jnp.full(NUM, 0.2)}

        def made(scale=2.0, **changed):
            request = SampleRequest(NUM, steps=2, guidance_scale=scale)
            listed = staged.all_stages(*imagen_super_resolution.cascade(values(**changed)), "ddim", request)
            return listed, params(), given

        yield made


KEYS = rng.per_example(rng.root(0), jnp.arange(NUM))


def drawn(listed, params, given):
    """(the base's pictures, the larger ones)."""
    known = jax.jit(lambda params, cond: stages.run(listed[:2], params, KEYS, cond))(params, given)
    rest = jax.jit(lambda params, cond: stages.run(listed[2:], params, KEYS, cond))(params, known)
    return np.asarray(known["low_res"]), np.asarray(rest["image"])


@pytest.mark.exhaustive
def test_the_cascade_in_one_program_is_its_stages(cascade):
    listed, params, given = cascade()
    shapes = {name: x.shape[1:] for name, x in given.items()}
    whole = jax.jit(stages.pipeline(listed, shapes, "image"))(params, KEYS, given)
    small, large = drawn(listed, params, given)
    assert small.shape == (NUM, 8, 8, 1)
    assert large.shape == (NUM, 16, 16, 1)
    np.testing.assert_allclose(whole, large, atol=1e-5)
    read = {name: lambda name=name: params[name] for name in params}
    np.testing.assert_allclose(stages.apart(listed, read, KEYS, given)["image"], whole, atol=1e-5)


@pytest.mark.exhaustive
def test_each_stage_has_its_own_guidance_threshold_and_steps(cascade):
    small, large = drawn(*cascade())
    for changed in ({"base.guidance": 4.0}, {"base.threshold": 100.0}, {"base.steps": 3}):
        others = drawn(*cascade(**changed))
        assert min(np.abs(a - b).max() for a, b in zip(others, (small, large), strict=True)) > 1e-3, changed
    for scale, changed in ((4.0, {}), (2.0, {"text.threshold": 100.0})):
        others = drawn(*cascade(scale, **changed))
        np.testing.assert_array_equal(others[0], small)
        assert np.abs(others[1] - large).max() > 1e-3, (scale, changed)
    listed, params, given = cascade()
    others = drawn(listed, params, given | {"noise_level": jnp.full(NUM, 0.6)})
    np.testing.assert_array_equal(others[0], small)
    assert np.abs(others[1] - large).max() > 1e-3


def test_a_base_of_other_sizes_is_refused(base, monkeypatch):
    _, method, params, _ = base
    experiment = SimpleNamespace(data=SimpleNamespace(shape=(8, 8, 1)))
    monkeypatch.setattr(runs, "opened", lambda *_: runs.Run(experiment, lambda: params))
    found = imagen_super_resolution.base_of("runs/base", method.model, (8, 8, 1))
    assert found["text"] is params["text"]
    assert found["base"] is params["network"]
    with pytest.raises(InputError, match="the base in runs/base draws 8x8x1; give its height and width as --config"):
        imagen_super_resolution.base_of("runs/base", method.model, (4, 4, 1))
    values = tiny("imagen_base")
    values.text.features = 16
    other = imagen.method(values, sources.digits).model
    with pytest.raises(InputError, match=r"give the values of --config\.base and --config.text that it has"):
        imagen_super_resolution.base_of("runs/base", other, (8, 8, 1))
