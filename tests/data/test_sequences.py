"""Sequences that are made: what moves does so by a pixel, and a series has the law that it should have."""

from itertools import pairwise

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sequences, sources

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 1), dtype=np.uint8)
MODEL = sequences.turning()


def moving(**options):
    return sequences.moving(sources.Arrays(IMAGES, label=np.arange(3)), **options)


def test_images_move_by_a_pixel_a_frame_and_come_back_on_the_other_side():
    source = moving(length=9, copies=40)
    assert len(source) == 120
    met = set()
    for i in range(len(source)):
        example = source[i]
        frames, direction = example["frames"], int(example["direction"])
        assert frames.shape == (9, 4, 6, 1)
        assert frames.dtype == np.uint8
        assert example["label"] == i % 3
        for before, after in pairwise(frames):
            column = 0 if direction == 1 else 5  # what enters is what has left on the other side
            np.testing.assert_array_equal(after[:, column], before[:, 5 - column])
            inner = np.s_[:, 1:] if direction == 1 else np.s_[:, :-1]
            np.testing.assert_array_equal(after[inner], before[:, :-1] if direction == 1 else before[:, 1:])
        starts = [s for s in range(6) if (np.roll(IMAGES[i % 3], s, axis=1) == frames[0]).all()]
        met.add((direction, *starts))
    assert met == {(direction, start) for direction in (-1, 1) for start in range(6)}


def test_a_sequence_depends_on_its_number_and_the_seed_alone():
    one, other = moving(copies=2), moving(copies=2, seed=1)
    for i in (4, 0, 4):
        np.testing.assert_array_equal(one[i]["frames"], moving(copies=2)[i]["frames"])
    assert any((one[i]["frames"] != other[i]["frames"]).any() for i in range(6))
    assert any((one[i]["frames"] != one[i + 3]["frames"]).any() for i in range(3))


def test_innovations_make_the_density_of_a_whole_series():
    a, c, length = MODEL.transition, MODEL.emission, 5
    np.testing.assert_allclose(a @ MODEL.start @ a.T + MODEL.noise, MODEL.start, atol=1e-12)
    # Stationary, so that x_s and x_t have the covariance C A^(t - s) P C'.
    cov = np.empty((length, length))
    for s in range(length):
        for t in range(s, length):
            later = c @ np.linalg.matrix_power(a, t - s) @ MODEL.start @ c.T
            cov[s, t] = cov[t, s] = later[0, 0] + (MODEL.blur[0, 0] if s == t else 0)
    source = sequences.series(MODEL, 20_000, length)
    x = np.stack([source[i]["series"] for i in range(len(source))])
    assert x.dtype == np.float32
    flat = x[..., 0].astype(np.float64)
    log_det = np.linalg.slogdet(2 * np.pi * cov)[1]
    density = -0.5 * (np.einsum("bi,ij,bj->b", flat, np.linalg.inv(cov), flat) + log_det)
    np.testing.assert_allclose(sequences.innovations(MODEL, x).sum(1), density, rtol=1e-9)
    # What is drawn has this law: 25 products to 5 standard errors each, of which one in 70,000 seeds has one outside.
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / len(x))
    assert (np.abs(flat.T @ flat / len(x) - cov) < 5 * error).all()
    assert (np.abs(flat.T @ flat / len(x) - np.roll(cov, 1, axis=0)) > 5 * error).any()  # the control


def test_impossible_sequences_are_refused():
    with pytest.raises(InputError, match="1 sequences of 0 frames for each image; give at least 1 of each"):
        moving(length=0)
    with pytest.raises(InputError, match="0 series of 20 entries; give at least 1 of each"):
        sequences.series(MODEL, num=0)
    with pytest.raises(InputError, match="a transition that does not shrink has no limit"):
        sequences.stationary(np.eye(2), MODEL.noise, MODEL.emission, MODEL.blur)
    with pytest.raises(InputError, match="have no split 'all'; choose one of train, test"):
        sequences.splits(MODEL)("all")
