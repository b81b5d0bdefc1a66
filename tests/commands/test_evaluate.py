"""Evaluations from the command line: what they write, that they go on after a kill, and what they refuse."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import evaluate, train
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.data import images, sources
from diffusion_jax.diffusion import parameterizations, schedules
from diffusion_jax.diffusion.likelihood import adaptive
from diffusion_jax.evaluation import extractors, frechet, image_store, protocol, quality, report
from diffusion_jax.methods import likelihoods
from tests import tiny, tiny_flow
from tests.commands.test_cli import run

pytestmark = pytest.mark.slow

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
    np.save(root / "large.npy", np.zeros((2, 9, 8, 1), np.uint8))
    np.save(root / "first.npy", np.zeros((2, 3, 8, 8), np.uint8))
    np.savez(root / "others.npz", mu=np.zeros(7), sigma=np.eye(7))
    np.savez(root / "bad.npz", mu=np.zeros(64), sigma=-np.eye(64))
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
    assert 'src="http' not in page


@pytest.mark.exhaustive
def test_a_killed_evaluation_goes_on(trained, tmp_path):
    """Killed in the middle; the parts that were there stay as they are, and the result is that of an unbroken run."""
    options = ["--workdir", trained, "--num", "40", "--steps", "400", "--batch", "8", *DIGITS]
    command = [sys.executable, "-m", "diffusion_jax.evaluate", *map(str, options), "--out", str(tmp_path / "broken")]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "broken").rglob("images_*.npz")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "broken").rglob("images_*.npz")}
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


def test_arrays_of_any_name_and_published_moments(digits, tmp_path):
    """Published moments give the Fréchet distance of the images they are of; float32 ones to their rounding."""
    test = np.load(digits / "test.npz")["images"]
    np.save(tmp_path / "test.npy", test)
    np.savez_compressed(tmp_path / "arr.npz", arr_0=test)
    told = extractors.digits().features(jnp.asarray(test))
    mean, covariance = frechet.moments(told["features"]).gaussian()
    spatial = dict(zip(("mu_s", "sigma_s"), frechet.moments(told["spatial"]).gaussian(), strict=True))
    np.savez(tmp_path / "moments.npz", mu=mean, sigma=covariance)
    np.savez(tmp_path / "rounded.npz", mu=mean.astype(np.float32), sigma=covariance.astype(np.float32))
    np.savez(tmp_path / "adm.npz", mu=mean, sigma=covariance, arr_0=test, **spatial)
    found = {}
    for reference in ("test.npy", "arr.npz", "moments.npz", "rounded.npz", "adm.npz"):
        out = tmp_path / f"out_{reference}"
        measured("--images", digits / "train.npz", "--reference", tmp_path / reference, *DIGITS, "--out", out)
        found[reference] = protocol.read(out / "evaluation.json")
    whole = found["test.npy"]["metrics"]
    assert found["arr.npz"]["metrics"] == whole
    for reference, rtol in (("moments.npz", 1e-9), ("rounded.npz", 1e-5)):
        metrics = found[reference]["metrics"]
        assert metrics.keys() == {"Fréchet distance", "Inception Score"}
        np.testing.assert_allclose(metrics["Fréchet distance"], whole["Fréchet distance"], rtol=rtol)
        assert metrics["Inception Score"] == whole["Inception Score"]
        assert found[reference]["protocol"]["reference"]["images"] is None
    assert found["adm.npz"]["metrics"].keys() == whole.keys()
    for name, value in found["adm.npz"]["metrics"].items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-9)
    hashes = {about["protocol"]["reference"]["sha256"] for about in found.values()}
    assert len(hashes) == 4  # test.npy and arr.npz hold the same
    assert not list(tmp_path.glob("out_*/*[!nl]"))  # evaluation.json and report.html are all that is left


def test_one_protocol_may_have_two_names(digits, tmp_path, capsys):
    shutil.copy(digits / "test.npz", tmp_path / "other.npz")
    for name, reference in (("a", digits / "test.npz"), ("b", tmp_path / "other.npz")):
        measured("--images", digits / "train.npz", "--reference", reference, *DIGITS, "--out", tmp_path / name)
    capsys.readouterr()
    assert compared(tmp_path / "a", tmp_path / "b") == 0
    said = capsys.readouterr().out
    assert "reference.name" in said
    assert "Fréchet distance" in said


def test_images_of_a_folder_are_of_one_size(digits, tmp_path):
    """The one that is another is named, wherever it stands; grey among colour is colour."""
    for name in ("b", "c"):
        Image.new("RGB", (8, 8), (9, 8, 7)).save(tmp_path / f"{name}.png")
    Image.new("L", (8, 8), 5).save(tmp_path / "a.png")
    (tmp_path / "._000.png").write_bytes(b"what another system left")
    assert image_store.of_path(tmp_path).some(2)[:, 0, 0].tolist() == [[5, 5, 5], [9, 8, 7]]
    Image.new("RGB", (64, 66)).save(tmp_path / "grid.png")
    with pytest.raises(InputError, match=r"images of 2 sizes in .*a.png of 8 x 8, .*grid.png of 64 x 66; remove"):
        image_store.of_path(tmp_path)


def test_the_hash_of_images_does_not_depend_on_their_parts():
    images = np.arange(1100, dtype=np.uint8).reshape(-1, 1, 1, 1)

    def of(*sizes):
        return image_store.Images(1100, lambda: iter(np.split(images, np.cumsum(sizes))), "").sha256()

    assert (
        of(500, 500)
        == of()
        == of(7, 493, 499, 2)
        != image_store.Images(1100, lambda: iter([images[::-1]]), "").sha256()
    )


def test_features_are_seen_by_no_other_process(digits, tmp_path):
    found = quality.features(extractors.digits(), image_store.of_path(digits / "test.npz"), tmp_path)
    again = quality.features(extractors.digits(), image_store.of_path(digits / "train.npz"), tmp_path)
    assert not list(tmp_path.iterdir())  # neither has a name in the folder
    assert (found["features"] != again["features"]).any()
    alone = quality.features(extractors.digits(), image_store.of_path(digits / "test.npz"), tmp_path)
    np.testing.assert_array_equal(found["features"], alone["features"])


BROKEN = {
    "a list": '{"protocol": [], "subject": {}, "metrics": {}}',
    "a number": '{"protocol": {}, "subject": {}, "metrics": 3}',
    "text": '{"protocol": {}, "subject": {}, "metrics": {"a": "b"}}',
    "deep": '{"protocol": ' + '{"a":' * 980 + "1" + "}" * 980 + ', "subject": {}, "metrics": {}}',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_reports_that_are_none(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(InputError, match=r"give an evaluation\.json"):
        protocol.read(tmp_path / "evaluation.json")


def test_numbers_of_other_protocols_do_not_compare(digits, tmp_path, capsys):
    measured("--images", digits / "train.npz", "--reference", digits / "test.npz", *DIGITS, "--out", tmp_path / "a")
    measured("--images", digits / "test.npz", "--reference", digits / "train.npz", *DIGITS, "--out", tmp_path / "b")
    capsys.readouterr()
    assert compared(tmp_path / "a", tmp_path / "b") == 2
    said = capsys.readouterr().err
    assert "reference.sha256" in said
    assert "generated" not in said  # that is the same


@pytest.mark.exhaustive
def test_likelihoods_of_other_steps_do_not_compare(trained, tmp_path, capsys):
    for steps in (3, 4):
        options = ("--likelihood", "bound", "--examples", 4, "--steps", steps, "--out", tmp_path / str(steps))
        measured("--workdir", trained, "--num", 0, *options)
    assert compared(tmp_path / "3", tmp_path / "3") == 0
    capsys.readouterr()
    assert compared(tmp_path / "3", tmp_path / "4") == 2
    assert "likelihood.steps: 3 and 4" in capsys.readouterr().err


def test_a_likelihood_to_a_tolerance_is_another_protocol(trained, tmp_path):
    options = ("--workdir", trained, "--config", tiny_flow.__file__, "--num", 0, "--likelihood", "ode")
    measured(*options, "--tolerance", 0.1, "--examples", 3, "--out", tmp_path)
    found = protocol.read(tmp_path / "evaluation.json")
    about = found["protocol"]["likelihood"]
    assert (about["tolerance"], about["steps"]) == (0.1, "the tolerance's")
    assert 0 < found["metrics"]["ode, error of an example"] < 0.1 / np.log(2)
    assert 12 < found["metrics"]["ode, network evaluations"] < 1000
    assert "0.1" in (tmp_path / "report.html").read_text()
    for other in ({"tolerance": 0.01}, {"steps": 50, "tolerance": None}):
        changed = found | {"protocol": {"likelihood": about | other}}
        with pytest.raises(InputError, match=r"likelihood\.tolerance: 0.1 and "):
            protocol.compare(found, changed)


@pytest.mark.parametrize(("part", "place", "said"), [
    ("total", 6, "total of example 6 is nan"), ("error", 1, "error of example 1 is inf: its steps became too short"),
    ("terms", (4, 2), r"terms\[2\] of example 4 is inf"), ("prior", 3, "prior of example 3 is inf; 1 more"),
])  # fmt: skip
def test_a_likelihood_that_is_not_finite_is_named_where_it_arises(part, place, said):
    """Seven examples in batches: what an example says of itself follows from its image."""
    arrays = {"prior": np.ones(7), "terms": np.ones((7, 3)), "error": np.ones(7), "total": np.ones(7)}
    arrays[part][place] = np.nan if part == "total" else np.inf
    if part == "prior":
        arrays["prior"][5], arrays["total"][3] = np.nan, np.nan
    ending = np.where(np.isfinite(arrays["error"]), adaptive.ARRIVED, adaptive.TOO_SHORT)
    made = namedtuple("Made", [*arrays, *(["ending"] if part == "error" else [])])
    tables = [jnp.asarray(a) for a in (*arrays.values(), ending)][: len(made._fields)]

    def function(params, keys, x0):
        return made(*(table[x0] for table in tables))

    data = SimpleNamespace(
        example={"image": None}, clean=lambda batch: batch["image"], condition=lambda batch: (), source=None
    )
    source = [{"image": np.int32(i)} for i in range(7)]
    with pytest.raises(NotFiniteError, match=said):
        quality.likelihood(function, {"w": jnp.zeros(1)}, data, source, 7, 8, 0)


def test_a_flow_says_the_same_in_steps_and_to_a_tolerance_and_where_it_breaks():
    """By what methods make of it: uniform noise in the bins, bits an entry; the third of three images breaks."""
    schedule = schedules.flow()
    x0 = images.to_float(np.random.default_rng(0).integers(0, 256, (3, 2, 2, 1)).astype(np.uint8))
    x0[2] = 1.0
    grid = likelihoods.level_grid(schedule)

    def apply(params, x, t):
        mean = x * ((1 - t) * 0.25 / ((1 - t) ** 2 * 0.25 + t**2))[:, None, None, None]
        return jnp.where(jnp.sum(x, axis=(1, 2, 3), keepdims=True) > 3.9, jnp.nan, mean)

    keys, x0_says = jax.random.split(jax.random.key(0), 3), parameterizations.x0(lambda t: t)
    made = (
        likelihoods.flow(schedule, grid)(apply, x0_says, None),
        likelihoods.flow_to_tolerance(schedule, grid)(apply, x0_says, 1e-3),
    )
    steps, tolerance = (jax.jit(fn)(None, keys, x0) for fn in made)
    np.testing.assert_allclose(steps.total[:2], tolerance.total[:2], atol=2e-3)  # a diagonal Jacobian has no noise
    assert (steps.evaluations == 352).all()
    for found in (steps, tolerance):
        assert found.ending.tolist() == [adaptive.ARRIVED, adaptive.ARRIVED, adaptive.NOT_FINITE]
        assert not np.isfinite(found.error[2])
        assert (found.error[:2] < 2e-3).all()


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


SLOW = ["--workdir", "{run}", "--num", "1000000", "--steps", "1000", *DIGITS]
FLOW = ["--workdir", "{run}", "--config", tiny_flow.__file__, "--num", "0", "--likelihood", "ode"]
MISTAKES = {
    "no extractor": (["--images", "{digits}/train.npz", "--reference", "{digits}/test.npz"], "no extractor; give"),
    "no reference": (["--images", "{digits}/train.npz", *DIGITS], "no images to compare with"),
    "no images": (["--images", "none.npz", "--reference", "{digits}/test.npz", *DIGITS], "cannot read none.npz"),
    "weights": (
        ["--images", "{digits}/train.npz", "--reference", "{digits}/test.npz", "--extractor", "{digits}/train.npz"],
        "train.npz",
    ),
    "no likelihood": (["--workdir", "{run}", "--num", "0", "--likelihood", "exact"], "it has bound, ode"),
    "nothing": (["--workdir", "{run}", "--num", "0"], "nothing to measure"),
    "not a report": (["--compare", "{digits}/train.npz", "{digits}/test.npz"], "give an evaluation.json"),
    "sampler": (["--workdir", "{run}", "--sampler", "dpm", *DIGITS], "choose from ancestral, ddim"),
    # What follows is refused before an image is drawn: in a second, where drawing takes minutes.
    "reference": ([*SLOW, "--reference", "nowhere"], "cannot read nowhere"),
    "likelihood": ([*SLOW, "--likelihood", "exact"], "it has bound, ode"),
    "examples": ([*SLOW, "--likelihood", "bound", "--examples", "-3"], "--examples: -3: give a whole number from 1"),
    "tolerance of none": ([*SLOW, "--likelihood", "bound", "--tolerance", "1e-4"], "bound is not solved to"),
    "tolerance of a table": ([*SLOW, "--likelihood", "ode", "--tolerance", "1e-4"], "ode is not solved to"),
    "tolerance below rounding": ([*FLOW, "--tolerance", "1e-9"], "in float32: take at least 5e-07"),
    "no tolerance": ([*FLOW, "--tolerance", "nan"], "--tolerance: nan: give a finite number"),
    "tolerance and steps": ([*FLOW, "--tolerance", "1e-4", "--steps", "9"], "leave --steps 9 out"),
    "tolerance of nothing": ([*SLOW, "--tolerance", "1e-4"], "--tolerance 0.0001 is of --likelihood"),
    "examples of nothing": ([*SLOW, "--examples", "3"], "--examples 3 is of --likelihood"),
    "no folder": ([*SLOW, "--out", "{digits}/train.npz/out"], "train.npz is no folder"),
    "another size": ([*SLOW, "--reference", "{digits}/large.npy"], "takes 8 x 8 x 1"),
    "moments of others": ([*SLOW, "--reference", "{digits}/others.npz"], "features of 7 and of 64 dimensions"),
    "no moments": ([*SLOW, "--reference", "{digits}/bad.npz"], "has the eigenvalue -1"),
    "channels first": (
        ["--images", "{digits}/first.npy", "--reference", "{digits}/test.npz", *DIGITS],
        "images.transpose(0, 2, 3, 1) puts the channels last",
    ),
    "no effect": (
        ["--images", "{digits}/train.npz", "--reference", "{digits}/test.npz", "--steps", "3", "--sigma-rel", ".1"],
        "--steps, --sigma-rel: of drawing",
    ),
}


@pytest.mark.parametrize(("options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_line(trained, digits, options, said, capsys, tmp_path):
    options = [option.format(run=trained, digits=digits) for option in options]
    assert run(evaluate.main, "--out", tmp_path / "out", *options) == 2
    output = capsys.readouterr().err.strip()
    assert said in output.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_metric_that_is_not_finite_is_named_and_not_written(tmp_path):
    report = {"protocol": {}, "subject": {}, "metrics": {"FID": 1.0, "KID": float("nan"), "sFID": float("inf")}}
    with pytest.raises(NotFiniteError, match=r"not finite: KID, sFID; no report is written"):
        protocol.write(tmp_path / "evaluation.json", report)
    assert not list(tmp_path.iterdir())


def test_parts_are_checked_and_never_taken_for_others(tmp_path, capsys):
    parts = image_store.Parts(tmp_path, 5, 2)
    assert parts.missing() == [0, 2, 4]
    for start, count in ((0, 2), (2, 2), (4, 1)):
        parts.add(start, np.full((count, 2, 2, 1), start, np.uint8))
    assert parts.missing() == []
    found = parts.images("mine")
    assert found.some(3)[:, 0, 0, 0].tolist() == [0, 0, 2]
    assert np.concatenate(list(found.parts())).shape == (5, 2, 2, 1)
    kept_part = (tmp_path / "images_00000002.npz").read_bytes()
    for damaged in (b"half a file", kept_part.replace(bytes([2] * 8), bytes([2] * 7 + [3]))):
        (tmp_path / "images_00000002.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="delete it and give the same command again"):
            list(found.parts())
        assert parts.missing() == [2]
        assert "images_00000002.npz" in capsys.readouterr().err
    parts.add(2, np.full((2, 2, 2, 1), 9, np.uint8))
    assert parts.missing() == []
    assert image_store.Parts(tmp_path, 5, 5).missing() == [
        0
    ]  # the first part of another division is not that of this one


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
