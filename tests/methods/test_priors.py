"""Priors over the codes of a run: what is held, what is drawn, how likely codes are, and what is refused."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import sample, train
from diffusion_jax.app import resolve
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers
from diffusion_jax.methods.autoencoders.compose import some
from diffusion_jax.training import held
from diffusion_jax.training.experiment import SampleRequest

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

CONFIGS = Path(__file__).parents[2] / "configs"
LOOP = "train.batch_size=8 train.steps=2 train.steps_per_call=1 log.sample_every=0 data.threads=0"
STAGE = "features=4 residual=2 blocks=1 dim=3 codes=5"
PRIOR = "features=4 layers=2 token_features=2 head_features=4"


def values(text, section=""):
    return [f"--config.{section}{value}" for value in text.split()]


def run(root, name, workdir, *more):
    arguments = ["--config", str(CONFIGS / f"{name}.py"), "--workdir", str(root / workdir), *values(LOOP), *more]
    train.main(arguments)


def of(root, *more):
    return [*values(PRIOR, "model."), *values(STAGE, "codes."), f"--config.codes.run={root}", *more]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A VQ-VAE and a prior over its codes."""
    root = tmp_path_factory.mktemp("runs")
    run(root, "vqvae", "vqvae", *values(STAGE, "model."))
    run(root, "pixelcnn", "prior", *of(root / "vqvae"))
    return root


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A VQ-VAE-2 and priors over its levels."""
    root = tmp_path_factory.mktemp("two")
    run(root, "vqvae2", "vqvae2", *values(STAGE, "model."))
    run(root, "pixelcnn_top", "top", *of(root / "vqvae2"))
    run(
        root,
        "pixelcnn_bottom",
        "bottom",
        *of(root / "vqvae2", *values(PRIOR, "above."), f"--config.above.run={root}/top"),
    )
    return root


def opened(folder):
    experiment = resolve.experiment(folder)
    return experiment, resolve.read(folder, experiment, resolve.AVERAGED)[1]


def keys(num):
    return rng.per_example(rng.root(3), jnp.arange(num))


def test_samples_are_the_decoded_codes_of_the_chain(runs):
    experiment, params = opened(runs / "prior")
    stage = resolve.experiment(runs / "vqvae").method
    images = experiment.sampling.samplers["raster"](SampleRequest(6))(params, keys(6))
    assert images.shape == (6, 8, 8, 1)
    method = experiment.method
    chain = method.chains["raster"]()

    def apply(params, *inputs):
        return method.model.apply({"params": params}, *inputs)

    draw = samplers.make_sample_fn(
        apply, method.parameterization, method.process, chain.sampler, chain.times, 6, method.data.shape
    )
    codes = draw(params["trained"], keys(6))
    first = params["held"]["first_stage"]
    np.testing.assert_allclose(images, stage.decode(first, stage.tokens.decoded(first, codes)).mean, atol=1e-5)


def test_the_likelihood_is_that_of_the_codes_of_examples(runs):
    experiment, params = opened(runs / "prior")
    stage = resolve.experiment(runs / "vqvae").method
    x = some(experiment.data, 7)
    codes = stage.code(params["held"]["first_stage"], keys(7), x).kept
    logits = experiment.method.model.apply({"params": params["trained"]}, codes, jnp.zeros(7))
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), codes[..., None], -1).mean((1, 2, 3))
    found = experiment.measures.likelihoods["exact"](None)(params, keys(7), x)
    np.testing.assert_allclose(found.total, -log_prob / np.log(2), rtol=1e-4)


def test_a_prior_needs_its_first_stage_no_more(runs, tmp_path):
    """Moved away, and without the run that it learned from: the same pictures, and the same resume."""
    shutil.copytree(runs / "prior", tmp_path / "prior")
    (runs / "vqvae").rename(runs / "gone")
    try:
        sample.main(["--workdir", str(tmp_path / "prior"), "--num", "3", "--film"])
        run(tmp_path, "pixelcnn", "prior", *of(runs / "vqvae"), "--config.train.steps=3")
    finally:
        (runs / "gone").rename(runs / "vqvae")
    sample.main(["--workdir", str(runs / "prior"), "--num", "3"])
    ours, theirs = (
        np.load(folder / "samples" / "raster_00000002_num-3" / "samples.npz")["images"]
        for folder in (runs / "prior", tmp_path / "prior")
    )
    np.testing.assert_array_equal(ours, theirs)
    assert (tmp_path / "prior" / "samples" / "raster_00000002_num-3" / "film.gif").is_file()


def test_two_levels_are_drawn_one_after_the_other(two):
    experiment, params = opened(two / "bottom")
    images = experiment.sampling.samplers["raster"](SampleRequest(5))(params, keys(5))
    assert images.shape == (5, 8, 8, 1)
    assert set(params["held"]) == {"first_stage", "above"}
    top, params_top = opened(two / "top")
    upper = top.sampling.samplers["raster"](SampleRequest(5))(params_top, rng.each(keys(5), 1))
    assert upper.shape == (5, 2, 2, 1)
    # The lower prior draws its upper codes with the upper prior's parameters, from keys of its own.
    x = some(experiment.data, 4)
    found = experiment.measures.likelihoods["exact"](None)(params, keys(4), x)
    other = experiment.measures.likelihoods["exact"](None)(params, keys(4), x[::-1])
    np.testing.assert_allclose(found.total, other.total[::-1], rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ("pixelcnn", [], "there is no run of codes"),
        ("pixelcnn", ["--config.codes.run=nowhere"], "no trained run in nowhere"),
        ("pixelcnn", ["--config.codes.run={runs}/prior"], "has no codes to learn"),
        (
            "pixelcnn",
            ["--config.codes.run={runs}/vqvae", *values(STAGE, "codes."), "--config.codes.codes=6"],
            "is another",
        ),
        (
            "pixelcnn_bottom",
            [*values(STAGE, "codes."), "--config.codes.run={two}/vqvae2"],
            "there is no prior over the upper codes",
        ),
    ],
)
def test_a_run_that_cannot_be_learned_is_refused(runs, two, tmp_path, config, more, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, config, "new", *(word.format(runs=runs, two=two) for word in more))
    assert not (tmp_path / "new").exists()


def test_an_upper_prior_of_other_codes_is_refused(two, tmp_path):
    run(tmp_path, "vqvae2", "other", *values(STAGE, "model."), "--config.seed=1")
    more = of(tmp_path / "other", *values(PRIOR, "above."), f"--config.above.run={two}/top")
    with pytest.raises(InputError, match="was not trained on the codes"):
        run(tmp_path, "pixelcnn_bottom", "new", *more)
    assert held.load(two / "top", dict)["first_stage"]
