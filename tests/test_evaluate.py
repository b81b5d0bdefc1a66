"""Evaluations from the command line: what they write, that they go on after a kill, and what they refuse."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import evaluate, train
from diffusion_jax.data import sources
from diffusion_jax.errors import InputError
from diffusion_jax.evaluation import kept, protocol, report
from tests import tiny
from tests.test_cli import run

DIGITS = ("--extractor", "digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "digits"
    assert run(train.main, "--config", tiny.__file__, "--workdir", workdir, "--config.train.steps=2") == 0
    return workdir


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Files of 100 training and of 100 test digits."""
    root = tmp_path_factory.mktemp("digits")
    for split in ("train", "test"):
        source = sources.digits(split)
        np.savez(root / f"{split}.npz", images=np.stack([source[i]["image"] for i in range(100)]))
    return root


def measured(*arguments):
    assert run(evaluate.main, *arguments) == 0


def compared(a, b):
    return run(evaluate.main, "--compare", a / "evaluation.json", b / "evaluation.json")


def test_a_run_is_measured_with_its_protocol(trained, tmp_path):
    options = ("--workdir", trained, "--num", 20, "--steps", 3, "--batch", 8, *DIGITS, "--out", tmp_path)
    measured(*options, "--reference", "test", "--likelihood", "bound", "--examples", 6)
    found = protocol.read(tmp_path / "evaluation.json")
    assert found["protocol"]["generated"] == 20
    assert found["protocol"]["reference"]["images"] == 597
    assert len(found["protocol"]["reference"]["sha256"]) == 64
    assert found["protocol"]["extractor"]["name"] == "digits classifier"
    assert found["subject"]["sampler"] == "ancestral"
    assert found["subject"]["ema_decay"] == 0.9999
    assert len(found["subject"]["weights_sha256"]) == 64
    assert {"jax", "device", "diffusion_jax"} <= found["environment"].keys()
    metrics = found["metrics"]
    assert {"Fréchet distance", "kernel distance", "precision", "nearest training image"} <= metrics.keys()
    np.testing.assert_allclose(
        metrics["bound, bits an entry"], metrics["bound, rate"] + metrics["bound, distortion"], rtol=1e-5
    )
    assert len(found["likelihood"]["terms"]) == 2
    about = found["protocol"]["likelihood"]
    assert (about["name"], about["steps"], about["data"]["examples"]) == ("bound", 3, 6)
    assert len(about["data"]["sha256"]) == 64
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # samples, neighbours, the bound's terms
    assert "src=\"http" not in page


def test_a_killed_evaluation_goes_on(trained, tmp_path):
    """Killed in the middle; the parts that were there stay as they are, and the result is that of an unbroken run."""
    options = ["--workdir", trained, "--num", "40", "--steps", "400", "--batch", "8", *DIGITS]
    command = [sys.executable, "-m", "diffusion_jax.evaluate", *map(str, options), "--out", str(tmp_path / "broken")]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "broken").rglob("images_*.npy")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "broken").rglob("images_*.npy")}
    assert 1 <= len(parts) < 5
    assert not (tmp_path / "broken" / "evaluation.json").exists()
    measured(*options, "--out", tmp_path / "broken")
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in parts.items())
    measured(*options, "--out", tmp_path / "whole")
    one, other = (protocol.read(tmp_path / name / "evaluation.json") for name in ("broken", "whole"))
    assert one["metrics"] == other["metrics"]
    assert one["subject"] == other["subject"]


def test_folders_and_files_are_measured_against_each_other(digits, tmp_path, capsys):
    for i, image in enumerate(np.load(digits / "train.npz")["images"]):
        (tmp_path / "folder").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / "folder" / f"{i:03d}.png")
    test = ("--reference", digits / "test.npz", *DIGITS)
    measured("--images", tmp_path / "folder", *test, "--out", tmp_path / "a")
    measured("--images", digits / "train.npz", *test, "--out", tmp_path / "b")
    a, b = (protocol.read(tmp_path / name / "evaluation.json") for name in "ab")
    assert a["metrics"] == b["metrics"]
    assert a["subject"]["images_sha256"] == b["subject"]["images_sha256"]
    # The same images on both sides: no distance, full coverage.
    measured("--images", digits / "test.npz", *test, "--out", tmp_path / "c")
    same = protocol.read(tmp_path / "c" / "evaluation.json")["metrics"]
    assert abs(same["Fréchet distance"]) < 1e-6 < a["metrics"]["Fréchet distance"]
    assert same["coverage"] == same["precision"] == 1

    capsys.readouterr()
    assert compared(tmp_path / "a", tmp_path / "c") == 0
    said = capsys.readouterr().out
    assert "Fréchet distance" in said
    assert "model" in said


def test_numbers_of_other_protocols_do_not_compare(digits, tmp_path, capsys):
    measured("--images", digits / "train.npz", "--reference", digits / "test.npz", *DIGITS, "--out", tmp_path / "a")
    measured("--images", digits / "test.npz", "--reference", digits / "train.npz", *DIGITS, "--out", tmp_path / "b")
    capsys.readouterr()
    assert compared(tmp_path / "a", tmp_path / "b") == 2
    said = capsys.readouterr().err
    assert "reference.sha256" in said
    assert "generated" not in said  # that is the same


def test_likelihoods_of_other_steps_do_not_compare(trained, tmp_path, capsys):
    for steps in (3, 4):
        options = ("--likelihood", "bound", "--examples", 4, "--steps", steps, "--out", tmp_path / str(steps))
        measured("--workdir", trained, "--num", 0, *options)
    assert compared(tmp_path / "3", tmp_path / "3") == 0
    capsys.readouterr()
    assert compared(tmp_path / "3", tmp_path / "4") == 2
    assert "likelihood.steps: 3 and 4" in capsys.readouterr().err


def test_an_extractor_of_ones_own(digits, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from diffusion_jax.evaluation import Extractor\n"
        "def extractor():\n"
        "    return Extractor(lambda x: {'features': x.reshape(len(x), -1) / 255.0}, 'pixels')\n"
    )
    options = ("--images", digits / "train.npz", "--reference", digits / "test.npz", "--out", tmp_path)
    measured(*options, "--extractor", tmp_path / "mine.py")
    found = protocol.read(tmp_path / "evaluation.json")
    assert found["protocol"]["extractor"]["name"] == "pixels"
    assert len(found["protocol"]["extractor"]["sha256"]) == 64
    assert "Inception Score" not in found["metrics"]  # it gives no logits


MISTAKES = {
    "no extractor": (["--images", "{digits}/train.npz", "--reference", "{digits}/test.npz"], "no extractor; give"),
    "no reference": (["--images", "{digits}/train.npz", *DIGITS], "no images to compare with"),
    "no images": (["--images", "nothing.npz", "--reference", "{digits}/test.npz", *DIGITS], "cannot read images"),
    "weights": (
        ["--images", "{digits}/train.npz", "--reference", "{digits}/test.npz", "--extractor", "{digits}/train.npz"],
        "train.npz",
    ),
    "no likelihood": (["--workdir", "{run}", "--num", "0", "--likelihood", "exact"], "it has bound, ode"),
    "nothing": (["--workdir", "{run}", "--num", "0"], "nothing to measure"),
    "not a report": (["--compare", "{digits}/train.npz", "{digits}/test.npz"], "give an evaluation.json"),
    "sampler": (["--workdir", "{run}", "--sampler", "dpm", *DIGITS], "choose from ancestral, ddim"),
}


@pytest.mark.parametrize(("options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_line(trained, digits, options, said, capsys, tmp_path):
    options = [option.format(run=trained, digits=digits) for option in options]
    assert run(evaluate.main, *options, "--out", tmp_path / "out") == 2
    output = capsys.readouterr().err.strip()
    assert said in output.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_parts_are_checked_and_never_taken_for_others(tmp_path):
    parts = kept.Parts(tmp_path, 5, 2)
    assert parts.missing() == [0, 2, 4]
    for start, count in ((0, 2), (2, 2), (4, 1)):
        parts.add(start, np.full((count, 2, 2, 1), start, np.uint8))
    assert parts.missing() == []
    found = parts.images("mine")
    assert found.some(3)[:, 0, 0, 0].tolist() == [0, 0, 2]
    assert np.concatenate(list(found.parts())).shape == (5, 2, 2, 1)
    (tmp_path / "images_00000002.npy").write_bytes(b"half a file")
    with pytest.raises(InputError, match="delete it and give the same command again"):
        list(found.parts())


def test_a_digest_sees_every_byte_and_place():
    tree = {"a": np.zeros(3, np.float32), "b": np.ones(2)}
    same = protocol.digest(tree)
    assert protocol.digest({"b": np.ones(2), "a": np.zeros(3, np.float32)}) == same
    nearly = tree | {"b": np.array([1, 1 + 1e-15])}
    for other in ({"a": tree["b"], "b": tree["a"]}, tree | {"a": np.zeros(3)}, nearly):
        assert protocol.digest(other) != same


def test_names_in_reports_are_escaped(tmp_path):
    report.write(tmp_path / "r.html", "<b>", {"metrics": {"<i>": 1.0}, "x": "</pre><script>"}, [])
    page = (tmp_path / "r.html").read_text()
    assert "<b>" not in page
    assert "<script>" not in page
