"""The spiral is where its docstring says, and levels of grey come back as they went."""

import numpy as np
import pytest
from sklearn.datasets import make_swiss_roll

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import toys
from diffusion_jax.data.sources import Arrays, digits


def everything(source, name):
    return np.stack([source[i][name] for i in range(len(source))])


def test_the_swiss_roll_lies_about_its_spiral():
    points = everything(toys.swiss_roll(4000), "point")
    assert points.shape == (4000, 2)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(points.std(0), 1, atol=0.08)
    assert np.abs(points).max() < 2.5
    # Back to where the spiral winds about 0; the noise is seen across the curve.
    points = points.astype(np.float64) * 7 + np.array([2, 2 / (3 * np.pi)])
    radius, angle = np.hypot(*points.T), np.arctan2(points[:, 1], points[:, 0])
    across = (radius - angle + np.pi) % (2 * np.pi) - np.pi
    assert abs(across.mean()) < 0.03
    assert 0.33 < across.std() < 0.39
    assert 1.5 * np.pi - 2 < radius.min() < 1.5 * np.pi < 4.5 * np.pi < radius.max() < 4.5 * np.pi + 2


def test_labels_are_half_turns_of_the_curve():
    """The nearest place of the curve has the label, but for noise at the borders."""
    roll, angle = toys.swiss_roll(1000), toys.angles(3000)
    points, label = everything(roll, "point"), everything(roll, "label")
    apart = np.linalg.norm(points[:, None] - toys.spiral(angle), axis=-1)
    assert apart.min(1).mean() == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.1)
    agree = toys.half_turn(angle)[apart.argmin(1)] == label
    assert agree.mean() > 0.98
    assert (np.bincount(label) > 250).all()
    assert label.dtype == np.int32
    np.testing.assert_array_equal(toys.half_turn(np.pi * np.array([1.5, 2.49, 2.51, 3.51, 4.5])), [0, 0, 1, 2, 2])


def test_the_swiss_roll_is_scikit_learns_and_depends_on_the_seed_alone():
    points = everything(toys.swiss_roll(10), "point")
    np.testing.assert_array_equal(everything(toys.swiss_roll(10), "point"), points)
    assert np.abs(everything(toys.swiss_roll(10, seed=1), "point") - points).max() > 0.1
    # One shift and one scale for all seeds.
    theirs = make_swiss_roll(10, noise=0.35, random_state=1)[0][:, [0, 2]]
    ours = everything(toys.swiss_roll(10, seed=1), "point")
    np.testing.assert_allclose(ours[1:] - ours[0], (theirs[1:] - theirs[0]) / 7, atol=1e-6)


@pytest.mark.parametrize(("num", "seen"), [(17, range(17)), (2, range(2))])
def test_digits_as_tokens_keep_their_labels(num, seen):
    source = toys.levels(digits("test"), num)
    assert len(source) == 597
    assert set(source[0]) == {"tokens", "label"}
    tokens = everything(source, "tokens")
    assert tokens.shape == (597, 8, 8, 1)
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(np.unique(tokens), seen)
    assert source[3]["label"] == digits("test")[3]["label"]


def test_digits_lose_nothing_in_17_levels():
    images = everything(digits("test"), "image")
    back = toys.to_uint8(everything(toys.levels(digits("test")), "tokens"))
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, images)


@pytest.mark.parametrize("num", [2, 3, 16, 17, 100, 255, 256])
def test_every_level_is_its_own(num):
    tokens = np.arange(num)
    grey = toys.to_uint8(tokens, num)
    assert (grey[0], grey[-1]) == (0, 255)
    source = toys.levels(Arrays(grey[None, None, :, None]), num)
    np.testing.assert_array_equal(source[0]["tokens"][0, :, 0], tokens)
    assert toys.to_uint8(num, num) == 255  # a mask; not 15, as it would be if it wrapped


def test_numbers_out_of_range_are_named():
    with pytest.raises(InputError, match="a swiss roll of 0 points; give at least 1"):
        toys.swiss_roll(0)
    with pytest.raises(InputError, match="no split 'all'; choose one of train, test"):
        toys.swiss_rolls("all")
    for num in (1, 257):
        with pytest.raises(InputError, match=f"{num} levels of grey are not possible; give 2 to 256"):
            toys.levels(digits(), num)
