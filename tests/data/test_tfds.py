"""Sets of TensorFlow Datasets, written by its own writer and read back through `tfds.data_source`.

Encoded image files need no TensorFlow to be prepared, so all this runs in a plain install.
"""

import importlib.util
import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from diffusion_jax.core.errors import InputError
from diffusion_jax.data.pipeline import batches, epoch
from diffusion_jax.data.sources import tfds_images

TRAIN, TEST = 11, 3


def photograph(i):
    """uint8 [6 + i % 3, 8, 3], its own for each i."""
    return np.random.default_rng(i).integers(0, 256, (6 + i % 3, 8, 3), dtype=np.uint8)


def encoded(array, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(array.squeeze()).save(file, kind)
    file.seek(0)
    return file


class _Set(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the little sets below have in common; each says its features and its i-th example."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=self.features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(TRAIN), "test": self._generate_examples(TEST)}

    def _generate_examples(self, n):
        for i in range(n):
            yield i, self.example(i)


class Photographs(_Set, skip_registration=True):
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=TRAIN),
            "image/filename": tfds.features.Text(),
        }
    )

    def example(self, i):
        return {"image": encoded(photograph(i)), "label": i, "image/filename": f"{i}.png"}


class Drawings(_Set, skip_registration=True):
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(4, 4, 1))})

    def example(self, i):
        return {"image": encoded(np.full((4, 4, 1), i, np.uint8))}


class Scenes(_Set, skip_registration=True):
    """As LSUN: JPEG of any size, some of them grey although the set calls itself RGB."""

    features = tfds.features.FeaturesDict({"image": tfds.features.Image(encoding_format="jpeg")})

    def example(self, i):
        return {"image": encoded(np.full((9, 10 + i) + (3,) * (i % 2), 20 * i, np.uint8), "JPEG")}


class Sounds(_Set, skip_registration=True):
    features = tfds.features.FeaturesDict({"pitch": tfds.features.Scalar(np.int64)})

    def example(self, i):
        return {"pitch": i}


class ArraysToEncode(_Set):
    """As MNIST and CIFAR-10: gives arrays, which only TensorFlow can encode."""

    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(4, 4, 1))})

    def example(self, i):
        return {"image": np.full((4, 4, 1), i, np.uint8)}


class OutOfReach(_Set):
    features = tfds.features.FeaturesDict({"image": tfds.features.Image()})

    def _split_generators(self, dl_manager):
        raise ConnectionError("Max retries exceeded with url: /images.zip\nName or service not known")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    for builder in (Photographs, Drawings, Scenes, Sounds):
        builder(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def error_of(*args, **kwargs):
    with pytest.raises(InputError) as error:
        tfds_images(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_images_and_labels_come_back_exactly(data_dir):
    source = tfds_images("photographs", "train", data_dir, size=(6, 8))
    assert len(source) == TRAIN
    labels = []
    for i in range(TRAIN):
        example = source[i]
        assert set(example) == {"image", "label"}  # text makes no arrays
        expected = photograph(example["label"])
        top = (len(expected) - 6) // 2
        np.testing.assert_array_equal(example["image"], expected[top : top + 6])
        labels.append(example["label"])
    assert sorted(labels) == list(range(TRAIN))


def test_it_reads_the_pixels_that_tfds_reads(data_dir):
    theirs = tfds.data_source("drawings", split="test", data_dir=data_dir)
    ours = tfds_images("drawings", "test", data_dir)
    assert len(ours) == len(theirs) == TEST
    for a, b in zip(map(ours.__getitem__, range(TEST)), theirs, strict=True):
        assert a["image"].shape == (4, 4, 1)
        np.testing.assert_array_equal(a["image"], b["image"])


def test_splits_are_those_of_tfds(data_dir):
    assert len(tfds_images("drawings", "train[:4]", data_dir)) == 4
    assert len(tfds_images("drawings", "train+test", data_dir)) == TRAIN + TEST
    assert len(tfds_images("drawings:1.0.0", "test", data_dir)) == TEST


def test_grey_jpegs_in_an_rgb_set_are_rgb(data_dir):
    batch = next(epoch(tfds_images("scenes", "train", data_dir, size=8), batch_size=TRAIN))
    assert batch["image"].shape == (TRAIN, 8, 8, 3)
    np.testing.assert_array_equal(np.sort(batch["image"][:, 0, 0, 0]), 20 * np.arange(TRAIN))
    assert (batch["image"] == batch["image"][:, :1, :1, :1]).all()


def test_a_transform_comes_before_the_size(data_dir):
    def left_half(picture):
        return picture.crop((0, 0, 4, picture.height))

    example = tfds_images("photographs", "test", data_dir, size=4, transform=left_half)[0]
    expected = photograph(example["label"])
    top = (len(expected) - 4) // 2
    np.testing.assert_array_equal(example["image"], expected[top : top + 4, :4])


def test_threads_read_what_one_reads(data_dir):
    source = tfds_images("photographs", "train", data_dir, size=6)
    one = batches(source, batch_size=4, seed=0, threads=0)
    many = batches(source, batch_size=4, seed=0, threads=4)
    for _ in range(30):
        np.testing.assert_array_equal(next(one)["image"], next(many)["image"])


def test_reading_imports_neither_tensorflow_nor_torch(data_dir):
    program = f"""
import sys
from diffusion_jax.data.pipeline import batches
from diffusion_jax.data.sources import tfds_images
batch = next(batches(tfds_images("drawings", "train", {str(data_dir)!r}), batch_size=4, seed=0))
print(batch["image"].shape, [name for name in ("tensorflow", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4, 4, 4, 1) []"


HELP = "prepare it with tfds build {} --file_format=array_record --data_dir=DIR, on a machine that can"


def test_what_tfds_cannot_give_says_why_and_how_to_get_it(data_dir):
    message = error_of("drawings", "valid", data_dir)
    assert "cannot get 'valid' of TFDS 'drawings' (Unknown split 'valid'. Should be one of" in message
    message = error_of("no_such_set", "train", data_dir)
    assert "(Dataset no_such_set not found); " + HELP.format("no_such_set") in message
    assert "BuilderConfig nowhere not found" in error_of("lsun/nowhere", "train", data_dir)
    assert "cannot get" in error_of("", "train", data_dir)


def test_no_network_says_how_to_get_the_set(tmp_path):
    message = error_of("out_of_reach", "train", tmp_path)
    assert "(Max retries exceeded with url: /images.zip); " + HELP.format("out_of_reach") in message


def test_archives_made_by_hand_are_asked_for(tmp_path):
    assert "Manual directory" in error_of("celeb_a_hq/256", "train", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_preparing_without_tensorflow_names_the_extra(tmp_path):
    message = error_of("arrays_to_encode", "train", tmp_path)
    assert "(No module named 'tensorflow'); run it once again after pip install" in message
    assert "'diffusion_jax[tfds]'" in message


def test_a_set_in_a_format_without_random_access_says_so(data_dir, tmp_path):
    # What `tfds build` writes unless told otherwise.
    old, new = data_dir / "drawings" / "1.0.0", tmp_path / "drawings" / "1.0.0"
    new.mkdir(parents=True)
    for file in old.iterdir():
        content = file.read_bytes().replace(b"array_record", b"tfrecord")
        (new / file.name.replace("array_record", "tfrecord")).write_bytes(content)
    message = error_of("drawings", "train", tmp_path)
    assert "['tfrecord']" in message
    assert HELP.format("drawings") in message


def test_sets_without_images_or_of_many_sizes_are_refused(data_dir):
    message = error_of("sounds", "train", data_dir)
    assert "TFDS 'sounds' has no 'image', only pitch; choose another set" in message
    message = error_of("photographs", "train", data_dir)
    assert "images of TFDS 'photographs' differ in size; give the size" in message
    with pytest.raises(InputError, match="image in TFDS 'drawings' is 4 x 4, smaller than 8 x 8"):
        tfds_images("drawings", "train", data_dir, size=8)[0]


@pytest.mark.parametrize(
    "name", ["mnist", "cifar10", "celeb_a_hq/256", "lsun/bedroom", "lsun/church_outdoor", "lsun/cat"]
)
def test_the_sets_of_the_configs_exist_and_have_the_features_we_read(tmp_path, name):
    features = tfds.builder(name, data_dir=tmp_path).info.features
    height, width, channels = features["image"].shape
    assert channels == (1 if name == "mnist" else 3)
    assert (None in (height, width)) == name.startswith("lsun")
    assert ("label" in features) == (name in ("mnist", "cifar10"))
