"""Sources in memory and in folders: the right pixels, in a fixed order, and errors that name the file."""

import contextlib
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from diffusion_jax.core.errors import InputError
from diffusion_jax.data.pipeline import batches
from diffusion_jax.data.sources import Arrays, digits, folder, with_labels, with_tokens


def everything(source):
    return [source[i] for i in range(len(source))]


def pattern(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.squeeze()).save(path, **options)


# In memory


def test_digits_split_the_data_set_without_loss_or_overlap():
    data = load_digits()
    expected = sorted((tuple(x), y) for x, y in zip(data.data.astype(int).tolist(), data.target, strict=True))

    def multiset(*splits):
        examples = [example for split in splits for example in everything(digits(split))]
        levels = [np.round(example["image"].ravel() / 255 * 16).astype(int).tolist() for example in examples]
        return sorted((tuple(x), example["label"]) for x, example in zip(levels, examples, strict=True))

    assert multiset("train", "test") == expected
    assert multiset("all") == expected
    assert (len(digits()), len(digits("test")), len(digits("all"))) == (1200, 597, 1797)


def test_digits_have_all_levels_and_never_change():
    example = digits()[0]
    assert example["image"].shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8
    images = np.stack([example["image"] for example in everything(digits())])
    np.testing.assert_array_equal(np.unique(images), np.round(np.arange(17) * 255 / 16))
    # The split is a promise: results on "test" compare between versions only while it holds.
    assert [int(digits()[i]["label"]) for i in range(10)] == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1]
    assert [int(digits("test")[i]["label"]) for i in range(10)] == [4, 4, 8, 2, 7, 9, 9, 2, 4, 3]


def test_digits_are_spread_evenly_over_the_splits():
    for split, n in (("train", 1200), ("test", 597)):
        counts = np.bincount([example["label"] for example in everything(digits(split))], minlength=10)
        assert abs(counts - n / 10).max() < 0.3 * n / 10


def test_an_unknown_split_names_those_there_are():
    with pytest.raises(InputError, match="no split 'valid'; choose one of train, test, all"):
        digits("valid")


def test_arrays_are_not_copied_and_cannot_be_written_through():
    image = pattern(4, 4)[None].copy()
    source = Arrays(image, label=np.array([7]))
    assert np.shares_memory(source[0]["image"], image)
    assert not source[0]["image"].flags.writeable
    assert image.flags.writeable  # the caller's own array stays as it was


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(InputError, match=r"different lengths.*'image': 2, 'label': 3"):
        Arrays(np.zeros((2, 4, 4, 1), np.uint8), label=np.arange(3))


# In folders


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_is_read_in_order_of_paths_and_of_any_kind(tmp_path, channels, capsys):
    names = ["z.png", "a/10.png", "a/2.PNG", "b/c/x.bmp", "B.webp"]
    written = {}
    for i, name in enumerate(names):
        written[name] = np.full((4, 4, channels), 10 * i, np.uint8)
        save(tmp_path / name, written[name], **({"lossless": True} if name.endswith("webp") else {}))
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "README").write_text("not an image")
    for hidden in ("._z.png", ".ipynb_checkpoints/z.png", "a/__MACOSX/b/z.png", "a/.git/c/z.png"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).write_text("what other programs leave")
    read = everything(folder(tmp_path, 4, channels=channels))
    everything(folder(tmp_path, 4, channels=channels))  # what is known is not said again
    assert capsys.readouterr().err == f"{tmp_path}: 5 images; left out: 4 hidden, 1 of .txt, 1 without an ending\n"
    for example, name in zip(read, ["B.webp", "a/10.png", "a/2.PNG", "b/c/x.bmp", "z.png"], strict=True):
        assert example["image"].dtype == np.uint8
        np.testing.assert_array_equal(example["image"], written[name])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_folder_turns_photographs_upright(tmp_path, orientation):
    upright = pattern(6, 6)
    undo = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, 1),  # "turn 90 degrees clockwise to see it"
        7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", np.ascontiguousarray(undo[orientation](upright)), exif=exif)
    np.testing.assert_array_equal(folder(tmp_path, 6)[0]["image"], upright)


def test_a_turned_photograph_is_cut_after_turning(tmp_path):
    upright = pattern(8, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", np.ascontiguousarray(np.rot90(upright)), exif=exif)
    np.testing.assert_array_equal(folder(tmp_path, (8, 6))[0]["image"], upright)
    with pytest.raises(InputError, match="is 8 x 6, smaller than 6 x 8"):
        folder(tmp_path, (6, 8))[0]


@pytest.mark.parametrize(("height", "width"), [(6, 11), (11, 6), (6, 6)])
def test_the_centre_is_cut_out_on_whole_pixels(tmp_path, height, width):
    image = pattern(height, width)
    save(tmp_path / "a.png", image)
    top, left = (height - 6) // 2, (width - 6) // 2
    np.testing.assert_array_equal(folder(tmp_path, 6)[0]["image"], image[top : top + 6, left : left + 6])


def test_size_may_be_height_and_width(tmp_path):
    image = pattern(4, 9)
    save(tmp_path / "a.png", image)
    np.testing.assert_array_equal(folder(tmp_path, (4, 7))[0]["image"], image[:, 1:8])


def test_shrinking_is_antialiased(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    save(tmp_path / "a.png", board.astype(np.uint8))
    small = folder(tmp_path, 8, channels=1)[0]["image"]
    assert abs(small.astype(float) - 127.5).max() < 3
    nearest = np.asarray(Image.fromarray(board.astype(np.uint8)).resize((8, 8), Image.Resampling.NEAREST))
    assert abs(nearest - 127.5).min() > 100  # the control: picking pixels would show


def test_grey_and_palette_and_transparent_images_become_rgb(tmp_path):
    grey = np.full((4, 4), 80, np.uint8)
    save(tmp_path / "a.png", grey)
    Image.fromarray(grey).convert("P").save(tmp_path / "b.png")
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "c.png")
    Image.fromarray(grey).convert("LA").save(tmp_path / "d.png")
    for example in everything(folder(tmp_path, 4)):
        np.testing.assert_array_equal(example["image"], np.full((4, 4, 3), 80, np.uint8))


def folder_error(path, size=4, **settings):
    with pytest.raises(InputError) as error:
        folder(path, size, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folder_errors_are_one_line_with_the_value(tmp_path):
    assert f"there is no folder {tmp_path / 'nowhere'}" in folder_error(tmp_path / "nowhere")
    assert f"folder {tmp_path} holds no images; put .png, .jpg" in folder_error(tmp_path)
    save(tmp_path / "a.png", pattern(4, 9))
    assert "a.png is 4 x 9, smaller than 5 x 5; remove it or lower the size" in folder_error(tmp_path, 5)
    assert "smaller than 4 x 10" in folder_error(tmp_path, (4, 10))
    assert "image size 0 is not possible" in folder_error(tmp_path, 0)
    assert "cannot have 2 channels" in folder_error(tmp_path, channels=2)
    # A file in place of the folder.
    assert "there is no folder" in folder_error(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n garbage"])
def test_a_file_that_is_no_image_is_named_at_once(tmp_path, content):
    save(tmp_path / "a.png", pattern(4, 4))
    (tmp_path / "b.png").write_bytes(content)
    expected = f"cannot read image {tmp_path / 'b.png'} (damaged, or not an image); replace or remove it"
    assert folder_error(tmp_path) == expected


@pytest.mark.parametrize("ending", ["jfif", "tif", "tiff", "gif"])
def test_other_endings_are_seen_and_of_several_pages_the_first(tmp_path, ending):
    first, second = (Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (80, 160))
    several = {} if ending == "jfif" else {"save_all": True, "append_images": [second]}
    first.save(tmp_path / f"a.{ending}", "JPEG" if ending == "jfif" else None, **several)
    np.testing.assert_array_equal(folder(tmp_path, 4, channels=1)[0]["image"], np.full((4, 4, 1), 80, np.uint8))


def test_linked_folders_are_followed_and_circles_are_not(tmp_path, capsys):
    data, other = tmp_path / "data", tmp_path / "other"
    save(data / "b.png", pattern(4, 4))
    save(other / "a.png", pattern(4, 4))
    (data / "linked").symlink_to(other)
    (other / "back").symlink_to(data)
    (other / "again").symlink_to(other)
    (data / "c.png").symlink_to(data / "b.png")
    assert len(folder(data, 4)) == 3
    assert capsys.readouterr().err == f"{data}: 3 images; left out: 2 linked again\n"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *extra, depth=8, colour=0, rows=b""):
    """A PNG file of zeros, or of `rows` as they are in it."""
    rows = rows or bytes((1 + width * {0: 1, 2: 3}[colour] * depth // 8) * height)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff():
    """Colours of 16 bits, of which Pillow writes none."""
    data = bytes(4 * 4 * 6)
    tags = {256: 4, 257: 4, 258: None, 259: 1, 262: 2, 273: None, 277: 3, 278: 4, 279: len(data)}
    end = 8 + 2 + 12 * len(tags) + 4
    fields = tags | {258: end, 273: end + 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in fields.items() if tag != 258)
    entries = entries[:24] + struct.pack("<HHII", 258, 3, 3, end) + entries[24:]
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + struct.pack("<3H", 16, 16, 16) + data


LONG = zlib.compress(bytes(2**21))
REFUSED = {
    "grey of 16 bits": ("a.png", png(4, 4, depth=16), "has more than 8 bits a channel; convert it"),
    "colours of 16 bits": ("a.png", png(4, 4, depth=16, colour=2), "has more than 8 bits a channel; convert it"),
    "a TIFF of 16 bits": ("a.tif", deep_tiff(), "has more than 8 bits a channel; convert it"),
    "a bomb": ("a.png", png(20_000, 20_000, rows=b"0"), "cannot read image"),
    "a smaller bomb": ("a.png", png(10_000, 10_000, rows=b"0"), "10000 x 10000, over 50000000 pixels"),
    "a long profile": ("a.png", png(4, 4, chunk(b"iCCP", b"a\0\0" + LONG)), "cannot read image"),
    "a long text": ("a.png", png(4, 4, chunk(b"zTXt", b"a\0\0" + LONG)), "cannot read image"),
    "a program of another kind": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "not an image"),
    "an EXIF of nothing": ("a.jpg", None, None),
}


@pytest.mark.parametrize(("name", "content", "said"), REFUSED.values(), ids=REFUSED)
def test_whatever_a_decoder_raises_is_one_line(tmp_path, name, content, said):
    if content is None:  # whether it is read depends on the version of Pillow; a traceback it is not
        save(tmp_path / name, pattern(8, 8), exif=b"Exif\0\0" + b"\xff" * 1000)
        with contextlib.suppress(InputError):
            everything(folder(tmp_path, 4))
        return
    (tmp_path / name).write_bytes(content)
    message = folder_error(tmp_path)
    assert said in message
    assert str(tmp_path / name) in message


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "pipe" in folder_error(tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_truncated_image_is_named_when_its_turn_comes(tmp_path, kind):
    path = tmp_path / f"b.{kind}"
    save(path, pattern(64, 64))
    path.write_bytes(path.read_bytes()[:-2000])
    message = f"cannot read image {path}"
    with pytest.raises(InputError) as error:
        next(batches(folder(tmp_path, 8), batch_size=1, seed=0))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_labels_beyond_the_table_are_named():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    good = with_labels(Arrays(images, label=np.array([0, 9, 3])), 10)
    assert [good[i]["label"] for i in range(len(good))] == [0, 9, 3]
    for wrong in (10, -1):
        bad = with_labels(Arrays(images, label=np.array([0, wrong, 3])), 10)
        assert bad[2]["label"] == 3
        with pytest.raises(InputError, match=rf"example 1 has the label {wrong}, and the network knows 0 to 9"):
            bad[1]
    with pytest.raises(InputError, match="no label, only image"):
        with_labels(Arrays(images), 10)[0]


def test_tokens_are_those_that_the_network_knows():
    codes = np.array([[0, 4], [1, 5], [2, -1]])
    checked = with_tokens(Arrays(codes, label=np.arange(3)), "image", 5)
    np.testing.assert_array_equal(checked[0]["image"], [0, 4])
    assert checked[0]["label"] == 0
    for index, token in ((1, 5), (2, -1)):
        with pytest.raises(InputError, match=rf"example {index} has the token {token} in image, and the network"):
            checked[index]
    with pytest.raises(InputError, match="example 0 has image of float64; tokens are integers"):
        with_tokens(Arrays(codes / 2), "image", 5)[0]
