"""Autoencoders from the command line: training, samples, looks, measures, and one line for each mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import evaluate, sample, train
from diffusion_jax.core.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = [
    "--config.model.codes=3",
    "--config.model.hidden=(8,)",
    "--config.train.batch_size=8",
    "--config.train.steps=4",
]
TINY += ["--config.train.steps_per_call=2", "--config.log.samples=4", "--config.data.threads=0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A variational autoencoder and a plain one, of a few steps."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("vae", "autoencoder"):
        train.main(["--config", str(CONFIGS / f"{name}.py"), "--workdir", str(root / name), *TINY])
    return root


def test_a_model_with_a_prior_draws_from_it_and_is_looked_at(runs):
    workdir = ["--workdir", str(runs / "vae")]
    sample.main([*workdir, "--num", "5"])
    drawn = np.load(runs / "vae" / "samples" / "prior_00000004_num-5" / "samples.npz")["images"]
    assert drawn.shape == (5, 8, 8, 1)
    for look, shape in {
        "reconstruct": (5, 2, 8, 8, 1),
        "traverse": (15, 7, 8, 8, 1),
        "filters": (8, 8, 8, 1),
    }.items():
        sample.main([*workdir, "--num", "5", f"--{look}"])
        folder = runs / "vae" / "samples" / f"{look}_5_00000004"
        assert np.load(folder / "samples.npz")["images"].shape == shape
        assert (folder / "grid.png").is_file()
        assert json.loads((folder / "asked.json").read_text())["look"] == look


def test_pictures_of_ones_own_are_reconstructed(runs, tmp_path):
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(picture).save(tmp_path / "mine.png")
    sample.main(["--workdir", str(runs / "vae"), "--reconstruct", str(tmp_path / "mine.png")])
    folder = runs / "vae" / "samples" / "reconstruct_1_mine_00000004"
    assert (np.load(folder / "samples.npz")["images"][0, 0, ..., 0] == picture).all()


def test_a_model_without_a_prior_reconstructs_what_it_is_told(runs):
    sample.main(["--workdir", str(runs / "autoencoder"), "--num", "5"])
    folder = runs / "autoencoder" / "samples" / "reconstruct_00000004_num-5"
    told = np.load(folder / "condition.npz")["x"]
    sample.main(["--workdir", str(runs / "autoencoder"), "--num", "5", "--reconstruct"])
    pairs = np.load(runs / "autoencoder" / "samples" / "reconstruct_5_00000004" / "samples.npz")["images"]
    assert np.array_equal(np.rint(255 * told), pairs[:, 0])
    assert np.abs(np.load(folder / "samples.npz")["images"].astype(int) - pairs[:, 1]).max() <= 1  # rounding


def test_codes_and_bounds_are_measured(runs, tmp_path):
    out = ["--out", str(tmp_path / "out")]
    evaluate.main(["--workdir", str(runs / "vae"), "--num", "0", "--codes", "--examples", "20", *out])
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    metrics = found["metrics"]
    assert metrics["ELBO, nats"] == pytest.approx(-metrics["rate, nats"] - metrics["distortion, nats"], rel=1e-5)
    assert found["protocol"]["codes"]["examples"] == 20
    bits = {}
    for draws in (1, 50):
        asked = [
            "--likelihood",
            "iwae",
            "--draws",
            str(draws),
            "--examples",
            "20",
            "--out",
            str(tmp_path / str(draws)),
        ]
        evaluate.main(["--workdir", str(runs / "vae"), "--num", "0", *asked])
        found = json.loads((tmp_path / str(draws) / "evaluation.json").read_text())
        assert found["protocol"]["likelihood"]["draws"] == draws
        bits[draws] = found["metrics"]["iwae, bits an entry"]
    assert bits[50] < bits[1]


def test_more_units_than_there_are_cannot_be_kept(tmp_path):
    wrong = ["--config.model.k=9", "--config.model.codes=8"]
    with pytest.raises(InputError, match="9 of 8 units cannot be kept"):
        train.main(["--config", str(CONFIGS / "ksparse.py"), "--workdir", str(tmp_path / "run"), *wrong])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sparse", "sparsity.rho=1"),
        ("denoising_masking", "masks.rate=1"),
        ("denoising", "noise.sigma=-1"),
        ("beta_vae_capacity", "rate.steps=0"),
        ("beta_tc", "references.each=0"),
    ],
)
def test_values_outside_their_ranges_are_named(tmp_path, name, wrong):
    given = ["--config", str(CONFIGS / f"{name}.py"), "--workdir", str(tmp_path / "run")]
    with pytest.raises(InputError, match=wrong.partition("=")[0]):
        train.main([*given, f"--config.{wrong}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive
def test_statistics_references_and_restorations_come_from_the_command_line(tmp_path):
    """A sparse one has a moving mean, beta-TC holds examples, and of a denoising one what it restores is measured."""
    few = ["--config.references.held=20", "--config.references.each=5"]
    measured = {}
    for name, more in {"beta_tc": few, "sparse": [], "denoising": []}.items():
        workdir = ["--workdir", str(tmp_path / name)]
        train.main(["--config", str(CONFIGS / f"{name}.py"), *workdir, *TINY, "--config.log.sample_every=0", *more])
        if not more:
            out = tmp_path / f"{name}_out"
            evaluate.main([*workdir, "--num", "0", "--codes", "--examples", "20", "--out", str(out)])
            measured[name] = json.loads((out / "evaluation.json").read_text())["metrics"]
    assert (tmp_path / "beta_tc" / "held.safetensors").is_file()
    assert 0.3 < measured["sparse"]["mean activation"] < 0.7
    assert measured["denoising"]["error of the spoilt"] == pytest.approx(0.3**2, rel=0.15)  # 1280 numbers, seed 0
    sample.main(["--workdir", str(tmp_path / "denoising"), "--num", "5", "--reconstruct"])
    folder = tmp_path / "denoising" / "samples" / "reconstruct_5_00000004"
    assert np.load(folder / "samples.npz")["images"].shape == (5, 3, 8, 8, 1)


@pytest.mark.parametrize(
    ("run", "command", "message"),
    [
        ("autoencoder", "sample --traverse", "no --traverse; it takes --reconstruct and --filters"),
        ("vae", "sample --reconstruct --steps 5", "--steps: of how samples are drawn"),
        ("vae", "sample --reconstruct --mask {root}/large.png", "--mask: of how samples are drawn"),
        ("vae", "evaluate --num 0 --likelihood elbo --steps 5", "elbo is one look at a code"),
        ("vae", "sample --steps 5", "draws without a chain and takes no --steps"),
        ("vae", "sample --reconstruct {root}/large.png", "large.png is 9 x 9, and 8 x 8 is needed"),
        ("vae", "evaluate --num 0 --likelihood elbo --draws 5", "elbo averages over no draws"),
        ("vae", "evaluate --num 0 --likelihood iwae --steps 5", "averages over draws and has no chain"),
        ("vae", "evaluate --num 0 --draws 5", "--draws 5 is of --likelihood"),
        ("vae", "evaluate --num 0 --likelihood bound", "no likelihood bound for this model; it has elbo, iwae"),
    ],
)
def test_one_line_for_every_mistake(runs, tmp_path, run, command, message):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "large.png")
    name, *options = command.format(root=tmp_path).split()
    main = {"sample": sample, "evaluate": evaluate}[name].main
    with pytest.raises(InputError, match=message):
        main(["--workdir", str(runs / run), *options])
