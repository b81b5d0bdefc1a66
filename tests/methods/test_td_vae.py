"""TD-VAE as an experiment: from the command lines, and what they refuse."""

import json

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import evaluate, sample, train
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sequences, sources
from diffusion_jax.methods.autoencoders import td_vae
from diffusion_jax.training.experiment import SampleRequest

pytestmark = pytest.mark.slow

SMALL = """
from diffusion_jax.data import sequences, sources
from diffusion_jax.methods.autoencoders import td_vae

def get_config():
    config = td_vae.config_digits()
    config.data.length, config.data.known = 6, 2
    config.model.seen = config.model.decoder = (8,)
    config.model.belief = config.model.hidden = 8
    config.model.layers = (3, 2)
    config.train.steps, config.train.batch_size, config.log.every = 20, 8, 10
    config.log.samples = 0
    return config

def build(config):
    source = lambda split: sequences.moving(sources.digits(split), config.data.length)
    return td_vae.build_frames(config, td_vae.frames(config, source, (8, 8, 1)))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("td_vae")
    (folder / "small.py").write_text(SMALL)
    train.main(["--config", str(folder / "small.py"), "--workdir", str(folder / "run")])
    return folder / "run"


def samples(run, *options):
    sample.main(["--workdir", str(run), "--num", "3", "--out", str(run / "out"), *options])
    found = {path.name: path for path in (run / "out").iterdir()}
    drawn = np.load(found["samples.npz"])["frames"]
    told = dict(np.load(found["condition.npz"])) if "condition.npz" in found else {}
    with Image.open(found["film.gif"]) as film:
        frames = film.n_frames
    for path in found.values():
        path.unlink()
    return drawn, told, frames


@pytest.mark.exhaustive
def test_rollouts_begin_as_told_and_are_films(run):
    test = sequences.moving(sources.digits("test"), 6)
    truth = np.stack([test[i]["frames"] > 127 for i in range(3)])
    drawn, told, moments = samples(run, "--film")
    assert drawn.shape == (3, 6, 8, 8, 1)
    assert moments == 6
    np.testing.assert_array_equal(drawn[:, :2], 255 * truth[:, :2])
    np.testing.assert_array_equal(told["known"], truth[:, :2])
    assert ((drawn[:, 2:] > 0) & (drawn[:, 2:] < 255)).all()  # means of a young decoder
    np.savez(run / "known.npz", known=truth[1:2, :4].astype(np.float32))
    longer, *_ = samples(run, "--film", "--condition", str(run / "known.npz"))
    np.testing.assert_array_equal(longer[:, :4], 255 * np.repeat(truth[1:2, :4], 3, axis=0))
    with pytest.raises(InputError, match="takes no condition, but known was given"):
        samples(run, "--film", "--sampler", "prior", "--condition", str(run / "known.npz"))
    first, told, _ = samples(run, "--film", "--sampler", "prior")
    assert not told
    assert (np.ptp(first[:, 0].astype(int), axis=0) > 0).any()  # drawn, each by its own key


@pytest.mark.exhaustive
def test_the_bound_is_measured_in_bits_and_in_nats(run):
    evaluate.main(["--workdir", str(run), "--num", "0", "--likelihood", "jump1", "--codes", "--examples", "40"])
    (found,) = (run / "evaluations").rglob("evaluation.json")
    metrics = json.loads(found.read_text())["metrics"]
    bits, nats = metrics["jump1, bits an entry"], metrics["jump 1, nats a frame"]
    assert 0 < bits < 2
    np.testing.assert_allclose(nats, bits * 64 * np.log(2), rtol=0.02)  # of other draws
    parts = metrics["rate, nats a frame"] + metrics["distortion, nats a frame"]
    np.testing.assert_allclose(parts, nats, rtol=1e-5)


def small(**values):
    config = td_vae.config_digits()
    config.update_from_flattened_dict(values)
    return config


def built(config):
    source = sequences.splits(sequences.turning(), config.data.length)
    return td_vae.build_series(config, td_vae.series(config, source, 1))


def test_what_does_not_fit_is_refused_in_one_line():
    for key, wrong, message in (
        ("data.known", 20, "20 known entries of 20 leave none to draw; make data.known less"),
        ("model.longest_jump", 21, "no jump of 21 fits into a sequence of 20; make model.longest_jump less"),
    ):
        with pytest.raises(InputError, match=message):
            built(small(**{key: wrong}))
    experiment = built(small())
    with pytest.raises(InputError, match="jump1 has a step an entry, and no 5; leave --steps out"):
        experiment.measures.likelihoods["jump1"](5)
    with pytest.raises(InputError, match="known has 20 entries; give fewer than 20"):
        experiment.data.sample_condition(2, {"known": np.zeros((1, 20, 1))})
    with pytest.raises(InputError, match="takes no --film"):  # series are no films
        experiment.sampling.samplers["rollout"](SampleRequest(1, run=lambda *inputs: None))
    frames = td_vae.frames(small(), lambda split: sequences.moving(sources.digits(split)), (8, 8, 1))
    with pytest.raises(InputError, match="known runs from 0 to 255; give pixels in 0 to 1"):
        frames.sample_condition(1, {"known": np.full((1, 2, 8, 8, 1), 255.0)})
