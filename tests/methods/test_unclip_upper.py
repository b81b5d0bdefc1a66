"""unCLIP's second network that enlarges, tiny: trained on spoiled small pictures, resumed, drawn from, refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import config, sample, train
from diffusion_jax.app import cli, resolve
from diffusion_jax.data import degradations
from diffusion_jax.data.images import to_float
from diffusion_jax.evaluation import quality
from diffusion_jax.methods.text_to_image import unclip

pytestmark = pytest.mark.slow

CONFIG = str(Path(__file__).parents[2] / "configs" / "unclip_1024_folder.py")
SIZES = "data.shape=(32,32,3) low.size=(8,8) data.part=(16,16)"
NETWORK = "model.channels=8 model.groups=4 model.multipliers=(1,2) model.blocks=1"
LOOP = "train.batch_size=8 train.steps_per_call=1 log.sample_every=0 log.every=1 data.threads=0"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """pictures/, four of random patches of colour."""
    root = tmp_path_factory.mktemp("upper")
    rng = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for number in range(4):
        picture = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        picture.resize((40, 36), Image.Resampling.BICUBIC).save(root / "pictures" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def runs(root):
    """straight/, a run of two steps; and resumed/, one that stopped after the first."""
    for name, steps in (("straight", (2,)), ("resumed", (1, 2))):
        for count in steps:
            train.main(arguments(root, name, f"--config.train.steps={count}"))
    return root


def arguments(root, name, *more):
    given = [f"--config.{value}" for text in (SIZES, NETWORK, LOOP) for value in text.split()]
    own = f"--config.data.dir={root / 'pictures'}"
    return ["--config", CONFIG, "--workdir", str(root / name), own, *given, *more]


def data(root):
    values = config.override(unclip.config_1024(), arguments(root, "")[4:])
    return unclip.upper_1024(values).data


@pytest.mark.exhaustive
def test_a_run_that_stopped_ends_with_the_same_bits(runs):
    def end(name, step):
        folder = runs / name
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        losses = {line["step"]: line["loss"] for line in map(json.loads, lines)}
        return resolve.read(folder, resolve.experiment(folder), resolve.RAW, step)[1], losses

    (ours, losses), (theirs, others) = end("straight", 2), end("resumed", 2)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert losses == others
    before, _ = end("resumed", 1)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(ours), strict=True))


def test_what_is_told_in_training_are_the_parts_spoiled(root):
    """Small pictures are near to the means of their own parts, and half as near to those of others."""
    images, rng = data(root), np.random.default_rng(0)
    source, batch = images.source("train"), []
    for number in range(8):
        features = source[number % 4]
        for transform in images.transforms:
            features = transform(features, rng)
        batch.append(features)
    parts, small = (np.stack([each[name] for each in batch]) for name in ("image", "low_res"))
    assert {"image": parts.shape[1:], "low_res": small.shape[1:]} == {n: x.shape for n, x in images.example.items()}
    (told,) = images.condition({"image": parts, "low_res": small})
    np.testing.assert_array_equal(told["low_res"], to_float(small))
    means = np.stack([degradations.means(part, 4) for part in parts]).astype(float)
    assert (small != means).any((1, 2, 3)).all()
    assert 2 * np.abs(small - means).mean() < np.abs(small - np.roll(means, 1, axis=0)).mean()


def test_samples_are_told_small_pictures_that_are_not_spoiled(root):
    images = data(root)
    (told,) = images.sample_condition(2, {})
    wholes = np.stack([images.source("train")[i]["image"] for i in range(2)])
    wanted = to_float(wholes).reshape(2, 8, 4, 8, 4, 3).mean((2, 4))
    np.testing.assert_allclose(told["low_res"], wanted, atol=1e-5)
    # The source has them too, in bytes: whole pictures are measured with these.
    np.testing.assert_allclose(to_float(images.source("train")[1]["low_res"]), wanted[1], atol=1 / 255 + 1e-6)


@pytest.mark.exhaustive
def test_trained_on_parts_it_draws_and_measures_whole_pictures(runs):
    folder, out = runs / "straight", runs / "out"
    sample.main([f"--workdir={folder}", "--num=2", "--steps=2", "--sampler=ddim", "--quiet", f"--out={out}"])
    assert np.load(out / "samples.npz")["images"].shape == (2, 32, 32, 3)
    experiment = resolve.experiment(folder)
    _, params = resolve.read(folder, experiment, resolve.AVERAGED)
    bound, source = experiment.measures.likelihoods["bound"](2), experiment.data.source("train")
    found = quality.likelihood(bound, params, experiment.data, source, count=2, batch=2, seed=0)
    assert np.isfinite(found["total"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("low.size=(9,9)", "data.shape=(32, 32, 3) is no whole multiple of low.size=(9, 9)"),
        ("low.size=(8,16)", "is no whole multiple of low.size=(8, 16)"),
        ("data.part=(16,18)", "pictures of 16x18 are no blocks of 4x4 pixels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_written(root, value, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.run(train.main, arguments(root, "refused", f"--config.{value}"))
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (root / "refused").exists()
