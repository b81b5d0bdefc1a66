"""Discrete autoencoders, composed: what they lose, what they keep, and that they learn the digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import quantizers
from diffusion_jax.autoencoding.codes import Code
from diffusion_jax.data import sources, views
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods.autoencoders import fsq, images, looks, surveys, vq_vae, vq_vae_2
from diffusion_jax.methods.autoencoders.compose import compose
from diffusion_jax.training.loop import fit

KEYS = jax.random.split(jax.random.key(0, impl="threefry2x32"), 3)
X = np.random.default_rng(0).uniform(size=(3, 8, 8, 1)).astype(np.float32)


def tiny(page):
    """A page's experiment on digits, with a small network."""
    config = page.default_config()
    config.model.update(features=4, residual=2, blocks=1)
    if page is not fsq:
        config.model.update(codes=5, dim=3)
    config.train.batch_size = 6
    return config, page.build(config, images.data(config, sources.digits))


PAGES = {"vq_vae": vq_vae, "vq_vae_2": vq_vae_2, "fsq": fsq}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_what_is_kept_is_decoded_to_the_code(page):
    """And the loss is the error and the commitment as two means, whatever the variance."""
    config, experiment = tiny(page)
    method = experiment.method

    @jax.jit
    def found(key):
        params = method.init(key)
        code = method.code(params, KEYS, X)
        loss, info = method.loss(KEYS, params, X, Context((), 0, {}, {}))
        error = ((method.decode(params, code.z).mean - X) ** 2).mean((1, 2, 3))
        return code.z, code.kept, method.tokens.decoded(params, code.kept), loss - code.rate, error, info

    z, kept, decoded, loss, error, info = found(jax.random.key(1))
    positions = {"vq_vae": {"": (4, 4)}, "vq_vae_2": {"top": (2, 2), "bottom": (4, 4)}, "fsq": {"": (4, 4)}}
    expected = next(positions[name] for name in PAGES if PAGES[name] is page)
    levels = kept if page is vq_vae_2 else {"": kept}
    assert {name: indices.shape[1:] for name, indices in levels.items()} == expected
    for a, b in zip(jax.tree.leaves(z), jax.tree.leaves(decoded), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert max(int(indices.max()) for indices in levels.values()) < method.tokens.vocab
    entries = {name: np.prod(shape) * 3 for name, shape in expected.items()}
    commitments = sum(
        info[f"{name}_commitment".strip("_")] / number for name, number in entries.items() if page is not fsq
    )
    nats = 64 / (2 * config.model.noise)
    constant = 32 * np.log(2 * np.pi * config.model.noise)
    np.testing.assert_allclose(loss, nats * (error + 0.25 * commitments) + constant, rtol=1e-4)


def test_the_lower_code_is_told_the_upper_one():
    """Its commitment reaches the decoder of the upper code, and through the upper code, straight, its encoder."""
    method = tiny(vq_vae_2)[1].method

    @jax.jit
    def slope(key):
        return jax.grad(lambda params: method.code(params, KEYS, X).info["bottom_commitment"].sum())(method.init(key))

    found = slope(jax.random.key(1))
    for part in ("decoder_top", "encoder_top", "encoder"):
        assert np.abs(found[part]["conv"]["kernel"]).max() > 0
    assert np.abs(found["decoder"]["conv"]["kernel"]).max() == 0


def constant_code(params, keys, x):
    """Of each example the indices 0, 1, 2, 3 at 2x2 positions, and its number at one above."""
    bottom = jnp.broadcast_to(jnp.arange(4).reshape(1, 2, 2), (len(x), 2, 2))
    return Code(None, None, None, {"top": jnp.arange(len(x)).reshape(-1, 1, 1), "bottom": bottom})


def test_codes_are_shown_as_levels_of_grey():
    shown = looks.codes(constant_code, 5, views.pictures(0.0)).draw({}, KEYS, X)
    np.testing.assert_array_equal(shown[:, 0], X)
    np.testing.assert_allclose(shown[:, 1, ::4, ::4, 0], np.broadcast_to([[0, 0.25], [0.5, 0.75]], (3, 2, 2)))
    np.testing.assert_allclose(shown[:, 2], np.broadcast_to(np.arange(3).reshape(3, 1, 1, 1) / 4, X.shape))


def test_codes_are_counted_over_the_whole_set():
    survey = surveys.usage(constant_code, 8)
    parts = [survey.each({}, KEYS, X) for _ in range(4)]
    found = survey.summary({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    expected = {"bottom perplexity": 4, "bottom codes used": 4, "top perplexity": 3, "top codes used": 3}
    assert found == pytest.approx(expected)


# ---- Learning.

STEPS = 300  # a fifth of what the config has


def learned(folder, change=lambda method: method, **values):
    """(test MSE, perplexity of the test digits' codes) after some updates."""
    config = vq_vae.default_config()
    config.model.update(values)
    config.train.steps = STEPS
    config.log.update(every=0, sample_every=0, checkpoint_every=0)
    method = change(vq_vae.method(config, images.data(config, sources.digits)))
    experiment = compose(config, method)
    params = jax.device_get(fit(experiment, config, folder, devices=jax.devices()[:1]).params)
    digits = sources.digits("test")
    x = np.stack([digits[i]["image"] for i in range(len(digits))]) / np.float32(255)
    keys = jax.random.split(jax.random.key(0), len(x))

    @jax.jit
    def measured(params):
        code = method.code(params, keys, x)
        return ((method.decode(params, code.z).mean - x) ** 2).mean(), quantizers.counted(code.kept, 32)

    error, counts = measured(params)
    return float(error), float(quantizers.perplexity(counts))


@pytest.mark.exhaustive
def test_digits_are_kept_by_all_codes(tmp_path):
    error, perplexity = learned(tmp_path / "run")
    assert error < 0.025
    assert perplexity > 18
    # Control: a codebook that stays where it is.
    error, perplexity = learned(tmp_path / "frozen", decay=0.999999, revived_below=0.0)
    assert error > 0.025
    assert perplexity < 10
