"""Memory that the metrics take does not grow with the number of images, where features are on disk."""

import tracemalloc

import numpy as np
import pytest

from diffusion_jax.evaluation import frechet, inception_score, kernel_distance, precision_recall

pytestmark = pytest.mark.slow

FEW, MANY, FEATURES = 800, 2400, 256
METRICS = {
    "Fréchet": lambda x: frechet.distance(frechet.moments(x), frechet.moments(x)),
    "kernel": lambda x: kernel_distance(x, x, block=200),
    "precision": lambda x: precision_recall(x, x, block=200),
    "score": lambda x: inception_score(x, splits=len(x) // 200),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    for count in (FEW, MANY):
        np.save(folder / f"{count}.npy", rng.normal(size=(count, FEATURES)).astype(np.float32))
    return folder


def peak(function, file):
    features = np.load(file, mmap_mode="r")
    tracemalloc.start()
    function(features)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.parametrize("name", METRICS)
def test_memory_does_not_grow_with_the_number_of_images(files, name):
    few, many = (peak(METRICS[name], files / f"{count}.npy") for count in (FEW, MANY))
    whole = MANY * FEATURES * 4  # bytes of the larger set, of which no part of that size is held
    assert many < few + whole / 4
    # Control: with the set in memory first, it is.
    assert peak(lambda x: METRICS[name](np.array(x)), files / f"{MANY}.npy") > few + whole / 4
