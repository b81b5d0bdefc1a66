"""Pictures with a text beside each."""

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import pictures
from diffusion_jax.data.captioned_folder import BYTES, captioned
from diffusion_jax.data.images import to_float
from diffusion_jax.data.pipeline import random_crop
from diffusion_jax.models.encoders.images import resized


@pytest.fixture
def folder(tmp_path):
    """Two pictures of one colour each, one of them in a folder below, and their texts."""
    for name, (level, text) in {"a.png": (10, " a\tcat,\nasleep \n"), "below/b.jpg": (200, "\ufeffein Käse")}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((6, 9, 3), level, np.uint8)).save(path)
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_picture_has_the_text_beside_it_as_one_line(folder, capsys):
    source = captioned(folder, (4, 6))
    assert capsys.readouterr().err.strip().endswith(": 2 images")  # texts are not told as left out
    assert [example["text"] for example in map(source.__getitem__, range(len(source)))] == [
        "a cat, asleep",
        "ein Käse",
    ]
    assert source[0]["image"].shape == (4, 6, 3)
    assert [int(source[i]["image"].mean().round()) for i in range(2)] == [10, 200]
    assert captioned(folder, 4, channels=1)[1]["image"].shape == (4, 4, 1)


def test_a_picture_is_shrunk_whole_to_its_short_side():
    """As CLIP's own preparation does, to a level or two; cutting and Lanczos are another."""
    rng = np.random.default_rng(0)
    for sides, wanted in {(40, 60): (16, 24), (60, 40): (24, 16), (33, 16): (33, 16), (47, 31): (24, 16)}.items():
        levels = rng.integers(0, 256, (*sides, 3), np.uint8)
        found = np.asarray(pictures.cover(Image.fromarray(levels), (16, 16), "a"))
        assert found.shape == (*wanted, 3)
        theirs = np.asarray(resized(to_float(levels[None]), 16)[0])
        assert abs(found - (theirs + 1) * 127.5).max() < 2
        cut = np.asarray(pictures.fit(Image.fromarray(levels), wanted, "a"))
        assert sides == wanted or abs(cut - (theirs + 1) * 127.5).max() > 4
    assert pictures.cover(Image.new("L", (50, 20)), (10, 16), "a").size == (25, 10)
    with pytest.raises(InputError, match="image a is 20 x 50, smaller than 24 x 16"):
        pictures.cover(Image.new("L", (50, 20)), (24, 16), "a")


def test_texts_that_are_missing_or_no_texts_are_named(folder):
    for content, said in {
        b" \n": "holds no text; say what the picture shows",
        b"\xff\xfe": r"a\.txt is not UTF-8 \(byte 0\)",
        b"x" * (BYTES + 1): "65,?537 bytes",
    }.items():
        (folder / "a.txt").write_bytes(content)
        with pytest.raises(InputError, match=said):
            captioned(folder, 4)[0]
    (folder / "below" / "b.txt").unlink()
    with pytest.raises(InputError, match=r"1 of 2 pictures have no text; the first lacks .*b\.txt"):
        captioned(folder, 4)


def test_a_part_of_a_picture_is_anywhere_in_it():
    """Seed 0; of 6 x 3 corners all are drawn: 400 draws miss one with a probability below 18 (17/18)^400 = 2e-9."""
    image = np.arange(8 * 6, dtype=np.uint8).reshape(8, 6, 1)
    rng, crop = np.random.default_rng(0), random_crop((3, 4))
    parts = [crop({"image": image, "label": 1}, rng) for _ in range(400)]
    assert {part["image"].shape for part in parts} == {(3, 4, 1)}
    corners = {int(part["image"][0, 0, 0]) for part in parts}
    assert corners == {6 * top + left for top in range(6) for left in range(3)}
    for part in parts[:5]:
        top, left = divmod(int(part["image"][0, 0, 0]), 6)
        np.testing.assert_array_equal(part["image"], image[top : top + 3, left : left + 4])
