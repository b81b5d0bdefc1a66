"""The judge of experiments/digits_quality.py, against closed forms and against sets whose order is known."""

import json

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.data import sources
from experiments import digits_quality as quality

pytestmark = pytest.mark.slow

DIMENSIONS = 6


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def gaussian(rng):
    root = rng.standard_normal((DIMENSIONS, DIMENSIONS))
    return rng.standard_normal(DIMENSIONS), root @ root.T


@pytest.fixture(scope="module")
def judge():
    return quality.Judge()


@pytest.fixture(scope="module")
def rows(judge):
    return {name: judge(pictures) for name, pictures in quality.controls(judge.train).items()}


def test_no_distance_to_itself(gaussian):
    np.testing.assert_allclose(quality.frechet(gaussian, gaussian), 0.0, atol=1e-12)


def test_a_shift_of_the_mean_costs_its_square(gaussian):
    mean, covariance = gaussian
    shift = np.arange(DIMENSIONS)
    np.testing.assert_allclose(quality.frechet((mean + shift, covariance), gaussian), np.sum(shift**2), rtol=1e-12)


def test_diagonal_covariances(rng):
    a, b = rng.uniform(0.1, 3.0, (2, DIMENSIONS))
    mean = np.zeros(DIMENSIONS)
    np.testing.assert_allclose(
        quality.frechet((mean, np.diag(a)), (mean, np.diag(b))), np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rtol=1e-12
    )


def test_covariances_that_do_not_commute(gaussian):
    """In two dimensions tr (A B)^1/2 has the closed form (tr A B + 2 sqrt(det A B))^1/2."""
    mean = np.zeros(2)
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    cross = np.sqrt(np.trace(a @ b) + 2.0 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2.0 * cross
    np.testing.assert_allclose(quality.frechet((mean, a), (mean, b)), expected, rtol=1e-12)


def test_singular_covariances():
    """A feature that is always 0, as dead units of the classifier are, changes nothing."""
    mean, a, b = np.zeros(3), np.diag([4.0, 1.0, 0.0]), np.diag([1.0, 1.0, 0.0])
    np.testing.assert_allclose(quality.frechet((mean, a), (mean, b)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(quality.frechet((mean, a), (mean, np.zeros((3, 3)))), 5.0, rtol=1e-12)


@pytest.mark.parametrize("bad", [-0.5, np.nan])
def test_what_is_no_covariance_is_refused(bad):
    mean = np.zeros(2)
    with pytest.raises(RunError, match="covariance"):
        quality.frechet((mean, np.diag([1.0, bad])), (mean, np.eye(2)))


def test_the_features_are_the_classifier_s(judge):
    """From the last hidden layer on, its own last layer gives its own answers."""
    network = judge._classifier
    logits = judge.features(judge.test) @ network.coefs_[-1] + network.intercepts_[-1]
    np.testing.assert_array_equal(logits.argmax(-1), network.predict(quality._vectors(judge.test)))


def test_the_classifier_knows_digits(judge):
    assert judge.accuracy > 0.97


def test_the_controls_are_in_order(rows):
    distances = [
        rows[name].distance for name in ("real, train", "real plus noise 0.3", "Gaussian of pixels", "uniform noise")
    ]
    assert distances == sorted(distances)
    real, noisy, gaussian, uniform = distances
    assert 3 * real < noisy < 0.8 * gaussian
    assert uniform > 10 * gaussian


def test_the_nearest_training_image_tells_reciting_from_drawing(judge, rows):
    assert rows["real, train"].nearest == 0.0
    assert judge(judge.test).nearest == 1.0
    np.testing.assert_allclose(judge(judge.test).distance, 0.0, atol=1e-8)


@pytest.mark.exhaustive
def test_a_table_from_a_file(judge, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quality, "Judge", lambda: judge)
    file, report = tmp_path / "samples.npz", tmp_path / "report.json"
    labels = np.array([sources.digits("train")[i]["label"] for i in range(300)])
    np.savez(file, images=judge.train[:300], labels=labels)
    quality.main(["--samples", str(file), "--json", str(report)])
    printed = capsys.readouterr().out
    assert "Gaussian of pixels" in printed
    assert "memorised?" in printed
    row = json.loads(report.read_text())["rows"]["samples"]
    assert row["images"] == 300
    assert row["nearest"] == 0.0
    assert f"{row['distance']:.2f}" in printed
    assert "agrees with 100.0 % of the samples' labels" in printed
    assert judge.agreement(judge.train[:300], np.roll(labels, 1)) < 0.3  # control: labels of other images


def test_a_wrong_file_is_named(tmp_path):
    file = tmp_path / "samples.npz"
    with pytest.raises(InputError, match=r"samples\.npz"):
        quality.load(file)
    np.savez(file, images=np.zeros((9, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="uint8"):
        quality.load(file)
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot read"):
        quality.load(file)
