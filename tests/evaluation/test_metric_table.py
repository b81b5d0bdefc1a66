"""Every metric puts real digits before worse and worse ones, and none but `nearest` sees what was recited.

Sets are fixed by their seeds, so nothing here is random. Real models stand in experiments/metric_table.py; in their
place are test digits with little and with much noise.
"""

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from experiments import metric_table
from experiments.metric_table import NEAREST, digits, memorising, misjudged, noisy, quality, sets, table

pytestmark = pytest.mark.slow

COMPARED = ("Fréchet distance", "spatial Fréchet distance", "kernel distance", "coverage")


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(1)
    return {"good": noisy(digits("test"), 0.2, rng), "short": noisy(digits("test"), 0.7, rng)}


@pytest.fixture(scope="module")
def rows(given):
    train, test = digits("train"), digits("test")
    return table(train, test, sets(train, test, given))


def test_distances_and_coverage_order_quality(rows):
    assert len(quality(rows)) == 8
    for metric in COMPARED:
        assert misjudged(rows, metric, quality(rows)) == [], metric


def test_every_metric_knows_noise(rows):
    for metric in rows["real"]:
        if metric != NEAREST:
            assert misjudged(rows, metric, [("real", "noise"), ("good", "noise"), ("noisy", "noise")]) == [], metric


def test_recall_and_coverage_miss_what_is_missing(rows):
    """50 digits again and again are all good (precision), and not all there is."""
    for metric in ("recall", "coverage", "Fréchet distance", "kernel distance"):
        assert misjudged(rows, metric, [("real", "few"), ("good", "few")]) == [], metric
    assert rows["few"]["precision"] == 1.0
    assert rows["few"]["recall"] < 0.1 < 0.8 < rows["real"]["recall"]


def test_only_the_guard_sees_recitation(rows):
    assert len(memorising(rows)) == 4
    assert misjudged(rows, NEAREST, memorising(rows)) == []
    assert rows["real"][NEAREST] == 1.0
    assert rows["memorised"][NEAREST] < 0.1
    for metric in (*COMPARED, "precision", "density"):
        assert misjudged(rows, metric, [("real", "memorised")]) == [("real", "memorised")], metric


def test_equal_values_are_no_order():
    rows = {"real": {"recall": 0.5, NEAREST: 1.0}, "few": {"recall": 0.5, NEAREST: 0.1}}
    pairs = [("real", "few")]
    assert misjudged(rows, "recall", pairs) == pairs
    assert misjudged(rows, NEAREST, pairs) == []


def test_less_is_better_of_distances():
    rows = {"real": {"kernel distance": -0.1}, "few": {"kernel distance": 0.1}}
    assert misjudged(rows, "kernel distance", [("real", "few")]) == []
    assert misjudged(rows, "kernel distance", [("few", "real")]) == [("few", "real")]


def test_all_sets_are_of_one_size(given):
    train, test = digits("train"), digits("test")
    found = sets(train, test, given | {"small": test[:100]})
    assert {len(pictures) for pictures in found.values()} == {100}
    assert {len(pictures) for pictures in sets(train, test, given).values()} == {597}


@pytest.mark.exhaustive
@pytest.mark.exhaustive
def test_the_command(given, tmp_path, capsys):
    options = []
    for name, pictures in given.items():
        np.savez(tmp_path / f"{name}.npz", images=pictures)
        options += ["--samples", f"{name}={tmp_path / name}.npz"]
    metric_table.main(options)
    printed = capsys.readouterr().out
    assert "597 images a set, against 1200 training digits" in printed
    assert "| memorised | " in printed
    assert "Fréchet distance, quality: 8 of 8 right\n" in printed
    assert "nearest, memorising: 4 of 4 right\n" in printed
    assert "not real / memorised" in printed
    with pytest.raises(InputError, match="NAME=FILE"):
        metric_table.main(["--samples", "good"])
