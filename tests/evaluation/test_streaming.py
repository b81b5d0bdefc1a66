"""Features of streams of images: the same however they are batched, and one line where they are wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.data import images as pixels
from diffusion_jax.evaluation import Extractor, frechet, streaming

SHAPE = (6, 5, 3)


def look(weights, x):
    flat = pixels.to_float(x).reshape(len(x), -1)
    return {"features": flat @ weights, "spatial": flat[:, :4]}


@pytest.fixture(scope="module")
def extractor():
    weights = np.random.default_rng(0).standard_normal((np.prod(SHAPE), 7)).astype(np.float32)
    return Extractor(Partial(look, weights), "test network", shape=(None, None, 3))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (53, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def expected(extractor, images):
    return {name: np.asarray(x) for name, x in extractor.features(images).items()}


def test_there_are_several_devices():
    assert len(jax.local_devices()) == 8


@pytest.mark.parametrize("size", [1, 8, 16, 100])
@pytest.mark.parametrize("cuts", [[], [50], [1, 2, 30, 30, 31]])
def test_all_images_in_their_order(extractor, images, expected, size, cuts):
    """Whatever the batches given and those computed, over eight devices, with a last one that is not full."""
    found = streaming.extract(extractor, np.split(images, cuts), size=size)
    assert set(found) == {"features", "spatial"}
    for name, x in expected.items():
        assert found[name].shape == x.shape
        np.testing.assert_allclose(found[name], x, rtol=1e-5, atol=1e-5)


def test_one_program_for_all_batches(images):
    """Counted where Python traces: once to check the shapes, once to compile, however many batches and calls."""
    traces = []

    def counted(x):
        traces.append(x.shape)
        return {"features": pixels.to_float(x).reshape(len(x), -1)}

    extractor = Extractor(Partial(counted), "counted")
    streaming.extract(extractor, np.split(images, [20, 21]), size=16)
    assert set(traces) == {(2, *SHAPE)}
    compiled = len(traces)
    streaming.extract(extractor, [images[:9]], size=16)
    assert len(traces) <= compiled + 1


def test_a_function_of_the_user_s_own(images):
    found = streaming.extract(Extractor(lambda x: {"features": x.mean((1, 2))}, "colours"), [images])
    np.testing.assert_allclose(found["features"], images.mean((1, 2)), rtol=1e-5)


def test_features_of_half_precision(images):
    found = streaming.extract(Extractor(lambda x: {"features": x.mean((1, 2), dtype=jnp.bfloat16)}, "half"), [images])
    assert found["features"].dtype == np.float32
    assert frechet.moments(found["features"]).count == 53


def test_a_generator_is_read_as_it_goes(extractor, images):
    """Nothing is read ahead beyond what a batch needs."""
    read = []

    def batches():
        for i in range(0, 48, 8):
            read.append(i)
            yield images[i : i + 8]

    stream = streaming.stream(extractor, batches(), size=8)
    next(stream)
    assert len(read) == 1
    assert sum(len(part["features"]) for part in stream) == 40


def test_moments(extractor, images, expected, monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK", 20)  # several merges, and a rest
    found = streaming.moments(extractor, [images], names=("features", "spatial"), size=8)
    for name, moments in found.items():
        direct = frechet.moments(expected[name])
        assert moments.count == 53
        np.testing.assert_allclose(moments.mean, direct.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.scatter, direct.scatter, rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="test network gives features, spatial, but no logits"):
        streaming.moments(extractor, [images], names=("logits",))


def test_float_images_are_those_of_files(extractor, images, expected):
    """In [-1, 1], rounded to bytes: noise below half a level changes nothing."""
    noise = np.random.default_rng(2).uniform(-0.4, 0.4, images.shape) / 127.5
    found = streaming.extract(extractor, [(pixels.to_float(images) + noise).astype(np.float32)])
    np.testing.assert_allclose(found["features"], expected["features"], rtol=1e-5, atol=1e-5)


WRONG = {
    "no batch axis": (np.zeros(SHAPE, np.uint8), "as \\[array\\]"),
    "channels": (np.zeros((2, 6, 5, 1), np.uint8), "images of 6 x 5 x 1; test network takes any x any x 3"),
    "integers": (np.zeros((2, *SHAPE), np.int32), "images of int32"),
    "range": (np.full((2, *SHAPE), 1.2, np.float32), "from 1.2 to 1.2"),
    "bytes as floats": (np.full((2, *SHAPE), 255.0), "from 255 to 255"),
    "not finite": (np.full((2, *SHAPE), np.nan, np.float32), "not finite"),
}


@pytest.mark.parametrize(("batch", "message"), WRONG.values(), ids=WRONG)
def test_wrong_images(extractor, batch, message):
    with pytest.raises(InputError, match=message):
        streaming.extract(extractor, [batch])


def test_images_of_several_shapes(extractor):
    with pytest.raises(InputError, match="one shape"):
        streaming.extract(extractor, [np.zeros((2, 6, 5, 3), np.uint8), np.zeros((2, 5, 6, 3), np.uint8)])


def test_no_images(extractor):
    for nothing in ([], [np.zeros((0, *SHAPE), np.uint8)]):
        with pytest.raises(InputError, match="no images"):
            streaming.extract(extractor, nothing)
        with pytest.raises(InputError, match="no images"):
            streaming.moments(extractor, nothing)
    with pytest.raises(InputError, match="batches of 0"):
        streaming.extract(extractor, [np.zeros((2, *SHAPE), np.uint8)], size=0)


BROKEN = {
    "no dictionary": (lambda x: x, "mine returns"),
    "no features": (lambda x: {"feature": x.mean((1, 2))}, "mine returns"),
    "an image": (lambda x: {"features": x.astype(float)}, r"mine: features is float32 \[1, 6, 5, 3\]"),
    "a number": (lambda x: {"features": x.mean((1, 2)), "logits": x.mean()}, "mine: logits"),
    "integers": (lambda x: {"features": x[:, 0, 0]}, "mine: features is uint8"),
}


@pytest.mark.parametrize(("function", "message"), BROKEN.values(), ids=BROKEN)
def test_wrong_extractors(images, function, message):
    with pytest.raises(InputError, match=message):
        streaming.extract(Extractor(function, "mine"), [images], size=8)


def test_features_that_are_not_finite(images):
    """The image is named, counted from the first."""
    dark = images.copy()
    dark[..., 0] |= 1
    dark[37] = 0
    extractor = Extractor(lambda x: {"features": 1.0 / jnp.sum(x, (1, 2), dtype=jnp.float32)}, "inverse")
    with pytest.raises(RunError, match="inverse: features of image 37 are not finite"):
        streaming.extract(extractor, [dark], size=16)
