"""What is kept can be read back, pictures show what they should, and frames line up."""

import io

import jax
import numpy as np
import pytest

from diffusion_jax.data import images, toys, views
from diffusion_jax.data.text import ASCII, Alphabet

MASK = np.array(views.MASK)
GREY = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)


def points(n):
    return np.random.default_rng(1).normal(size=(n, 2)).astype(np.float32)


def tokens(length, vocab=97):
    return np.random.default_rng(2).integers(0, vocab, (5, length))


CASES = {
    "pictures": (views.pictures(), images.to_float(GREY)),
    "levels": (views.levels(17), np.round(GREY / 255 * 17).astype(np.int32)),
    "labelled": (views.labelled(10), {"image": images.to_float(GREY), "label": np.array([0, 3, 9, 10, 10])}),
    "text": (views.text(ASCII, 96), tokens(64)),
    "long text": (views.text(ASCII, 96), tokens(300)),
    "points": (views.points(2.5), points(5)),
    "sequences": (views.sequences(), np.stack([np.roll(GREY, s, 2) for s in range(30)], 1) / np.float32(255)),
    "series": (views.series(), points(100).reshape(5, 20, 2)),
}


def saved(view, samples):
    """{file name: what was written}, the arrays of an npz as a dictionary."""
    written = {}
    for name, save in view.files(samples).items():
        file = io.BytesIO()
        save(file)
        written[name] = dict(np.load(io.BytesIO(file.getvalue()))) if name.endswith(".npz") else file.getvalue()
    return written


def as_frames(samples, f):
    """`f` frames, all equal."""
    return jax.tree.map(lambda x: np.stack([x] * f), samples)


def first(samples, n):
    return jax.tree.map(lambda x: x[:n], samples)


def altered(samples):
    """Other samples of the same shapes."""
    return jax.tree.map(lambda x: np.roll(x, 1, axis=min(1, x.ndim - 1)), samples)


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_uint8_of_modest_and_steady_size(tmp_path, name):
    view, samples = CASES[name]
    pictures = [view.picture(samples), view.picture(altered(samples))]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()
    for picture in (*pictures, view.strip(as_frames(first(samples, 2), 11)), view.picture(first(samples, 1))):
        assert picture.dtype == np.uint8
        assert picture.shape[2] in (1, 3)
        assert max(picture.shape) <= 1500
    images.save_png(tmp_path / "a.png", pictures[0])
    assert next(iter(view.files(samples))) == "samples.npz"


@pytest.mark.parametrize("name", CASES)
def test_a_strip_shows_the_first_and_the_last_frame(name):
    view, samples = CASES[name]
    few = first(samples, 2)
    same, other = as_frames(few, 30), as_frames(altered(few), 30)
    strip = view.strip(same)
    for f, shown in ((0, True), (29, True), (1, False)):
        frames = jax.tree.map(lambda a, b, f=f: np.concatenate([a[:f], b[f : f + 1], a[f + 1 :]]), same, other)
        assert (view.strip(frames) != strip).any() == shown
    assert view.strip(as_frames(few, 1)).shape[1] < strip.shape[1]  # no frame twice


def test_images_are_kept_to_the_level():
    np.testing.assert_array_equal(saved(*CASES["pictures"])["samples.npz"]["images"], GREY)
    np.testing.assert_array_equal(views.pictures().picture(images.to_float(GREY)), images.grid(GREY))


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_among_levels_have_their_own_colour(channels):
    x = np.random.default_rng(3).integers(0, 17, (1, 4, 4, channels))
    np.testing.assert_array_equal(saved(views.levels(17), x)["samples.npz"]["images"], toys.to_uint8(x))
    x[0, 1, 2] = 17
    picture = views.levels(17).picture(x)[2:-2:16, 2:-2:16]
    np.testing.assert_array_equal(picture[1, 2], MASK)
    picture[1, 2] = x[0, 1, 2] = 0
    np.testing.assert_array_equal(picture, np.broadcast_to(toys.to_uint8(x[0]), (4, 4, 3)))


def test_labels_are_kept_and_written_above_their_images():
    view, samples = CASES["labelled"]
    kept = saved(view, samples)["samples.npz"]
    np.testing.assert_array_equal(kept["images"], GREY)
    np.testing.assert_array_equal(kept["labels"], [0, 3, 9, 10, 10])
    assert kept["labels"].dtype == np.int32

    def caption(label, classes=10):
        one = {"image": np.full((1, 8, 8, 1), -1.0), "label": np.array([label])}
        tile = views.labelled(classes).picture(one)[2:-2, 2:-2]
        assert (tile[-64:] == 0).all()
        return tile[:-64]

    captions = [caption(label) for label in range(11)]
    for i, one in enumerate(captions):
        assert one.min() < 100  # something is written
        assert all((one != other).any() for other in captions[:i])
    np.testing.assert_array_equal(captions[10], caption(7, classes=7))  # the mask, whatever its number


def test_text_is_kept_as_tokens_and_as_lines():
    view = views.text(Alphabet("ab\n\t é"), 6)
    x = np.array([[0, 2, 1, 6], [3, 4, 5, 0]])
    kept = saved(view, x)
    assert kept["samples.txt"].decode() == "a↵b·\n� éa\n"
    np.testing.assert_array_equal(kept["samples.npz"]["tokens"], x)
    assert kept["samples.npz"]["tokens"].dtype == np.int32


def test_a_letter_of_a_text_keeps_its_place():
    """Each letter stands in a cell of its own, whatever is beside it; masks have their colour."""
    view = views.text(ASCII, 96)
    x = np.tile(ASCII.encode("The quick, brown fi fox"), (2, 1))
    before, after = [], view.picture(x).astype(int)
    for column in (0, 10, 22):
        y = x.copy()
        y[1, column] = 96
        before, changed = view.picture(y).astype(int), np.argwhere((view.picture(y) != after).any(-1))
        assert np.ptp(changed[:, 1]) < 9  # pixels; a letter is 7 wide
        assert changed[:, 0].min() > after.shape[0] // 2 - 1  # in the second line
        mask = before[tuple(changed.T)]
        assert np.abs(mask - MASK).max(1).min() < 60
    assert (view.picture(np.full((2, 23), 1)) == 255).all()  # blanks


def test_a_text_as_long_as_you_like_is_folded_not_cut():
    view = views.text(ASCII, 96)
    x = np.ones((1, 300), np.int32)
    blank = view.picture(x)
    for place in (0, 95, 96, 299):
        y = x.copy()
        y[0, place] = 40
        assert (view.picture(y) != blank).any()


def test_points_stand_where_they_are_up_is_up_and_the_frame_is_fixed():
    view = views.points(2.0)
    for point in ([1.0, 1.0], [-1.5, 0.5]):
        picture = view.picture(np.array([point]))[8:-8, 8:-8].astype(int)  # without the border
        height, width = picture.shape[:2]
        y, x = np.argwhere(picture.min(-1) < 200).mean(0)
        scale = (height + 16) * 0.98 / 4
        np.testing.assert_allclose([x, y], [width / 2 + point[0] * scale, height / 2 - point[1] * scale], atol=1.5)
    empty = view.picture(np.zeros((0, 2)))
    np.testing.assert_array_equal(view.picture(np.array([[9.0, 9.0], [np.nan, 0.0]])), empty)
    kept = saved(view, points(3))["samples.npz"]["points"]
    np.testing.assert_array_equal(kept, points(3))


def test_many_points_show_how_dense_they_are():
    picture = views.points(2.0).picture(np.concatenate([points(4000) * 0.1, points(4000) * 0.6]))
    assert picture[230:250, 230:250].mean() < picture[230:250, 330:350].mean() - 10


WITH_IMAGES = {  # name: (view, levels of grey above black)
    "pictures": (views.pictures(), 255),
    "from 0": (views.pictures(0.0), 255),
    "levels": (views.levels(17), 16),
}


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_images_as_samples_are_those_images_again(name):
    """Every level of grey that the samples have, in images of any size."""
    view, steps = WITH_IMAGES[name]
    grey = np.round(np.arange(steps + 1) * (255 / steps)).astype(np.uint8).reshape(1, -1, 1, 1)
    samples = view.from_images(grey)
    np.testing.assert_array_equal(view.images(samples), grey)
    ends = {"pictures": (-1, 1), "from 0": (0, 1), "levels": (0, 16)}[name]
    np.testing.assert_allclose(samples[0, [0, -1], 0, 0], ends, atol=1e-6)


def test_sequences_are_kept_to_the_level_and_are_their_own_film():
    view, samples = CASES["sequences"]
    frames = saved(view, samples)["samples.npz"]["frames"]
    np.testing.assert_array_equal(frames, np.round(samples * 255))
    film = view.film(samples)
    assert len(film) == 30
    np.testing.assert_array_equal(film[7], images.grid(frames[:, 7]))
    assert all(view.film is None for name, (view, _) in CASES.items() if name != "sequences")
