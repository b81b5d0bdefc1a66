"""Pictures that networks are told of, as the command line names them."""

import argparse

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.app import shown
from diffusion_jax.core.errors import InputError


def given(*arguments):
    parser = argparse.ArgumentParser()
    shown.add_options(parser)
    return shown.given(parser.parse_args(list(map(str, arguments))))


def test_pictures_are_told(tmp_path):
    pixels = [np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8) for size in ((4, 6), (4, 6), (5, 3))]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)
    assert given() == {}
    found = given("--hint", *paths[:2], "--like", *paths[1:])
    np.testing.assert_allclose(found["hint"] * 255, np.stack(pixels[:2]), atol=1e-4)  # from 0 to 1
    assert found["hint"].dtype == np.float32
    for one, picture in zip(found["like"], pixels[1:], strict=True):  # each of its own size
        np.testing.assert_array_equal(one, picture)
    with pytest.raises(InputError, match=r"2\.png is 5 x 3, and 4 x 6 is needed"):
        given("--hint", paths[0], paths[2])
