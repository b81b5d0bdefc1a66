"""The bundled judge of digits is the classifier that it was exported from."""

import numpy as np
import pytest

from diffusion_jax import evaluation
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.evaluation import extractors
from diffusion_jax.pretrained.formats import safetensors_file
from experiments import digits_quality, train_digits_judge


def read(split):
    source = sources.digits(split)
    examples = [source[i] for i in range(len(source))]
    return [np.stack([x[name] for x in examples]) for name in ("image", "label")]


@pytest.fixture(scope="module")
def said():
    return evaluation.extract(evaluation.digits(), [read("test")[0]])


def test_it_is_the_classifier_of_the_experiment(said):
    """Its weights, rounded to float32, in scikit-learn's own network, on the digits of the test split.

    The experiment's classifier is made anew, and another machine's sums may train it a little differently; that it
    is this one to rounding holds for the weights, so they are put in its place.
    """
    images, labels = read("train")
    network = digits_quality.classifier(images[:100], labels[:100])
    file = {name: np.asarray(x, np.float64) for name, x in safetensors_file.load(extractors.DIGITS).items()}
    network.coefs_ = [file[f"{i}.kernel"] for i in range(3)]
    network.intercepts_ = [file[f"{i}.bias"] for i in range(3)]
    test, test_labels = read("test")
    expected = network.predict_proba(digits_quality._vectors(test))
    logits = said["logits"].astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(1, keepdims=True), expected, atol=1e-5)
    accuracy = (logits.argmax(1) == test_labels).mean()
    assert round(100 * accuracy, 1) == 98.8


def test_the_last_hidden_layer_is_what_it_says(said):
    file = {name: np.asarray(x) for name, x in safetensors_file.load(extractors.DIGITS).items()}
    assert {name: x.shape[1] for name, x in said.items()} == {"features": 64, "logits": 10, "spatial": 128}
    h = np.maximum(said["spatial"] @ file["1.kernel"] + file["1.bias"], 0)
    np.testing.assert_allclose(h, said["features"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(h @ file["2.kernel"] + file["2.bias"], said["logits"], rtol=1e-4, atol=1e-3)


def test_training_it_again_gives_all_but_the_same(said):
    """On this machine; elsewhere training may end a little off, so only the figures that it gives are compared."""
    judge = digits_quality.Judge()
    bundled = evaluation.extract(evaluation.digits(), [judge.train])["features"]
    ours = evaluation.frechet.distance(
        evaluation.frechet.moments(said["features"]), evaluation.frechet.moments(bundled)
    )
    np.testing.assert_allclose(ours, judge(judge.train).distance, rtol=0.3)


def test_the_script_writes_the_arrays_that_are_read(tmp_path):
    images, labels = read("train")
    arrays = train_digits_judge.weights(digits_quality.classifier(images[:100], labels[:100]))
    known = {name: (x.dtype, x.shape) for name, x in safetensors_file.load(extractors.DIGITS).items()}
    assert {name: (x.dtype, x.shape) for name, x in arrays.items()} == known


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    data = bytearray(extractors.DIGITS.read_bytes())
    data[5000] ^= 1
    file = tmp_path / "digits.safetensors"
    file.write_bytes(data)
    monkeypatch.setattr(extractors, "DIGITS", file)
    with pytest.raises(InputError, match="install the package again"):
        evaluation.digits()


def test_other_images_are_refused():
    with pytest.raises(InputError, match="32 x 32 x 3; digits classifier takes 8 x 8 x 1"):
        evaluation.extract(evaluation.digits(), [np.zeros((2, 32, 32, 3), np.uint8)])
