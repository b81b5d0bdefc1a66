"""Pixels to numbers and back without loss, and pictures that can be read again."""

import math
import os

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images

LEVELS = np.arange(256, dtype=np.uint8)


def random_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_the_256_levels_go_to_floats_and_back():
    floats = images.to_float(LEVELS)
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (-1.0, 1.0)
    np.testing.assert_allclose(np.diff(floats), 2 / 255, atol=1e-7)
    np.testing.assert_array_equal(images.to_uint8(floats), LEVELS)
    np.testing.assert_array_equal(images.to_uint8(images.to_float(jnp.asarray(LEVELS))), LEVELS)


def test_floats_go_to_the_nearest_level_and_are_clipped():
    # A level owns the floats up to 1/255 around it; just inside is that level, just outside its neighbour.
    centre = images.to_float(LEVELS).astype(np.float64)
    np.testing.assert_array_equal(images.to_uint8(centre + 0.99 / 255), LEVELS)
    np.testing.assert_array_equal(images.to_uint8(centre - 0.99 / 255), LEVELS)
    np.testing.assert_array_equal(images.to_uint8(centre[:-1] + 1.01 / 255), LEVELS[1:])
    np.testing.assert_array_equal(images.to_uint8(np.array([-7.0, -1.001, 1.001, 1e30])), [0, 0, 255, 255])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("n", "columns", "scale"), [(1, None, None), (7, None, 2), (6, 4, 1), (5, 5, 3)])
def test_a_grid_holds_every_image_in_reading_order(n, columns, scale, channels):
    pad = 3
    tiles = random_images(n, 4, 6, channels)
    sheet = images.grid(tiles, columns=columns, padding=pad, scale=scale)
    columns, scale = columns or math.ceil(math.sqrt(n)), scale or 64 // 6
    rows, height, width = math.ceil(n / columns), 4 * scale, 6 * scale
    assert sheet.shape == (rows * (height + pad) + pad, columns * (width + pad) + pad, channels)
    ink = np.zeros(sheet.shape, bool)
    for i, tile in enumerate(tiles):
        top, left = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        cell = np.s_[top : top + height, left : left + width]
        np.testing.assert_array_equal(sheet[cell], np.kron(tile, np.ones((scale, scale, 1), np.uint8)))
        ink[cell] = True
    assert (sheet[~ink] == 255).all()


def test_large_images_are_not_enlarged():
    assert images.grid(random_images(1, 100, 40, 3), padding=0).shape == (100, 40, 3)


def test_a_strip_has_a_row_for_each_example_from_first_to_last_frame():
    frames = random_images(11, 2, 4, 4, 1)
    expected = images.grid(frames[[0, 5, 10]].swapaxes(0, 1).reshape(6, 4, 4, 1), columns=3)
    np.testing.assert_array_equal(images.strip(frames, columns=3), expected)
    assert images.strip(frames[:2], columns=8, padding=0, scale=1).shape == (8, 8, 1)  # no frame twice


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_read_back_exactly(tmp_path, channels):
    image = random_images(5, 7, channels)
    path = tmp_path / "new" / "folder" / "a.png"
    images.save_png(path, image)
    with Image.open(path) as back:
        assert back.format == "PNG"
        np.testing.assert_array_equal(np.asarray(back).reshape(5, 7, channels), image)
    assert os.listdir(path.parent) == ["a.png"]


def test_a_failed_save_leaves_the_old_picture_and_no_litter(tmp_path):
    path = tmp_path / "a.png"
    images.save_png(path, random_images(5, 7, 3))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        images.save_png(path, random_images(5, 7, 5))  # five channels are no picture
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*a.png .*; choose a path you may write to") as error:
        images.save_png(tmp_path / "file" / "a.png", random_images(5, 7, 3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_shows_every_frame_and_holds_the_last(tmp_path, channels):
    frames = np.full((4, 2, 8, 8, channels), 0, np.uint8)
    frames += np.arange(0, 200, 50, dtype=np.uint8).reshape(4, 1, 1, 1, 1)
    path = tmp_path / "film.gif"
    images.save_film(path, [images.grid(frame) for frame in frames], seconds=0.4, hold=2.0)
    with Image.open(path) as film:
        assert film.n_frames == 4
        assert film.info["loop"] == 0
        durations = []
        for f in range(4):
            film.seek(f)
            durations.append(film.info["duration"])
            shown = np.asarray(film.convert("RGB"))
            expected = images.grid(frames[f])
            assert shown.shape[:2] == expected.shape[:2]
            assert abs(shown.astype(int) - expected).max() <= 4  # GIF has a palette of 256 colours
    assert durations == [100, 100, 100, 2100]
    assert os.listdir(tmp_path) == ["film.gif"]
