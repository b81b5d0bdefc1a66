"""Latent diffusion: training and drawing are the method's own, on scaled latents; a work directory is whole."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding.latents import Halves, Scaling, statistics
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images, sources
from diffusion_jax.data import latents as kept
from diffusion_jax.diffusion import samplers
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods import ddpm, edm, latent_diffusion, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.models.transformers import dit
from diffusion_jax.training.experiment import SampleRequest
from tests import tiny

FACTOR = {"factor": np.float32(3.0), "std": np.float32(0.0)}


def folded(x):
    """[B, 8, 8, 1] -> [B, 4, 4, 4]: the pixels of a square are the channels of a latent."""
    return x.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4, 4)


def unfolded(z):
    return z.reshape(-1, 4, 4, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 8, 8, 1)


HALVES = Halves(
    lambda params, x: Gaussian(params["factor"] * folded(x) + 1, params["std"] ** 2),
    lambda params, z: unfolded((z - 1) / params["factor"]),
)


@pytest.fixture
def opened(monkeypatch):
    """In place of a run, a first stage that loses nothing."""
    found = SimpleNamespace(
        read=lambda: FACTOR, scaling=None, about="the run", clean=lambda batch: images.to_float(batch["image"])
    )
    monkeypatch.setattr(latent_diffusion, "opened", lambda weights, flag: found)
    return found


def experiment(scale=latent_diffusion.to_unit, known=latent_diffusion.encoded):
    config = latent_diffusion.with_first_stage(ddpm.with_table(tiny.get_config()), tiny.get_config().model)
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), FACTOR)
    stage = latent_diffusion.Stage(HALVES, template, pixels.data(config, sources.digits), (4, 4, 4))
    found = known(stage)
    model = dit.DiT(patch=2, features=16, layers=1, heads=2, out_channels=4)
    method = edm.model_of(found.data, model, sigma_data=1.0)
    plain = method._replace(data=method.data._replace(clean=lambda batch: batch["image"]))
    return latent_diffusion.compose(config, stage, found, method, scale), compose(config, plain)


def losses(experiment, keys, params, batch, t, held):
    loss = experiment.task.loss
    return jax.jit(lambda *given: loss(*given[:3], Context(given[3], held=given[4]))[0])(keys, params, batch, t, held)


def test_the_loss_is_that_of_the_method_on_scaled_latents(opened):
    latent, plain = experiment()
    held = latent.task.held()
    batch = {"image": np.stack([sources.digits()[i]["image"] for i in range(4)])}
    params = latent.task.init(rng.root(0))
    keys, t = rng.per_example(rng.root(1), jnp.arange(4)), jnp.linspace(0.2, 0.8, 4)
    found = losses(latent, keys, params, batch, t, held)
    z = (3 * folded(latent.data.clean(batch)) + 1) * held["scaling"]["scale"]
    wanted = losses(plain, keys, params, {"image": z}, t, {})
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_samples_films_and_previews_are_decoded(opened):
    latent, plain = experiment()
    params = latent.task.init(rng.root(0))
    whole = latent.sampling.whole(params, latent.task.held)
    scale = whole["held"]["scaling"]["scale"]
    request = SampleRequest(2, steps=3)
    z = plain.sampling.samplers["heun"](request)(params, rng.root(5))
    found = latent.sampling.samplers["heun"](request)(whole, rng.root(5))
    np.testing.assert_allclose(found, unfolded((z / scale - 1) / 3), atol=1e-5)
    film = latent.sampling.samplers["heun"](request._replace(run=lambda *x: samplers.film(*x, frames=3)))
    x, frames = film(whole, rng.root(5))
    assert frames.shape[1:] == x.shape == (2, 8, 8, 1)
    np.testing.assert_allclose(frames[-1], x, atol=1e-6)
    assert latent.data.view.images(np.asarray(x)).shape == (2, 8, 8, 1)


def test_latents_are_drawn_anew_and_by_keys_of_their_own(opened):
    opened.read = lambda: FACTOR | {"std": np.float32(0.5)}
    latent, _ = experiment()
    batch = {"image": np.stack([sources.digits()[0]["image"]] * 3)}
    params, t = latent.task.init(rng.root(0)), jnp.full(3, 0.01)
    seeds = [rng.per_example(rng.root(seed), jnp.arange(3)) for seed in range(2)]
    found = [losses(latent, keys, params, batch, t, latent.task.held()) for keys in seeds]
    assert len(np.unique(np.asarray(found).round(6))) == 6


def test_a_first_stage_of_images_in_another_range_is_refused(opened):
    latent, _ = experiment()
    opened.clean = lambda batch: batch["image"].astype(np.float32) / 255
    with pytest.raises(InputError, match=r"takes images in \[0, 1\], where the config.s data are in \[-1, 1\]"):
        latent.task.held()


def test_scalings():
    z = np.random.default_rng(0).normal([1.0, -2.0], [2.0, 0.5], (1000, 2, 2, 2))
    known = statistics(z)
    published = Scaling(0.18215)
    assert latent_diffusion.as_published(known, published) is published
    with pytest.raises(InputError, match="says no scale"):
        latent_diffusion.as_published(known, None)
    assert latent_diffusion.as_they_are(known, published).scaled(z) is not None
    np.testing.assert_array_equal(latent_diffusion.as_they_are(known, published).scaled(z), z)
    assert abs(latent_diffusion.to_unit(known, published).scaled(z).std() - 1) < 1e-9
    each = latent_diffusion.channels_to_unit(known, published).scaled(z)
    np.testing.assert_allclose([each.mean((0, 1, 2)), each.std((0, 1, 2))], [[0, 0], [1, 1]], atol=1e-9)


def prepared(folder, **changes):
    """A folder of prepared latents, without their files."""
    return lambda stage: latent_diffusion.prepared(stage, str(folder))


def test_prepared_latents_of_another_first_stage_or_size_are_refused(opened, monkeypatch, tmp_path):
    known = statistics(np.random.default_rng(0).normal(size=(9, 4, 4, 4)))
    record = SimpleNamespace(
        first_stage=latent_diffusion.digest(FACTOR), image=(8, 8, 1), shape=(4, 4, 4), statistics=known, about="a run"
    )
    monkeypatch.setattr(kept, "record", lambda path: record)
    latent, _ = experiment(known=prepared(tmp_path))
    held = latent.task.held()
    np.testing.assert_allclose(held["scaling"]["scale"], np.full(4, 1 / known.std), rtol=1e-6)
    batch = {"latent": np.zeros((2, 4, 4, 4), np.float32)}
    keys = rng.per_example(rng.root(1), jnp.arange(2))
    assert losses(latent, keys, latent.task.init(rng.root(0)), batch, jnp.full(2, 0.5), held).shape == (2,)
    record.shape = (2, 2, 4)
    with pytest.raises(InputError, match=r"are \(2, 2, 4\) of images \(8, 8, 1\), not \(4, 4, 4\)"):
        latent.task.held()
    record.first_stage = "another"
    with pytest.raises(InputError, match="made by another first stage"):
        latent.task.held()


def test_a_likelihood_of_latents_is_none(opened):
    config = latent_diffusion.with_first_stage(ddpm.with_table(tiny.get_config()), tiny.get_config().model)
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), FACTOR)
    stage = latent_diffusion.Stage(HALVES, template, pixels.data(config, sources.digits), (4, 4, 4))
    known = latent_diffusion.encoded(stage)
    model = dit.DiT(patch=2, features=16, layers=1, heads=2, out_channels=4)
    found = latent_diffusion.compose(config, stage, known, ddpm.model_of(config, known.data, model))
    with pytest.raises(InputError, match="bits of latents are none of images"):
        found.measures.likelihoods["bound"](None)
