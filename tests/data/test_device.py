"""Prefetching to the device changes nothing but the time: same batches, and the position of what was used."""

import itertools

import jax
import numpy as np
import pytest

from diffusion_jax.data.device import prefetch
from diffusion_jax.data.pipeline import batches, epoch, random_flip
from diffusion_jax.data.sources import digits

SETTINGS = dict(batch_size=8, seed=1, transforms=(random_flip,))


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_batches_come_in_order_with_the_position_right_after_them(size):
    expected = list(itertools.islice(batches(digits(), **SETTINGS), 12))
    drawn = list(itertools.islice(prefetch(batches(digits(), **SETTINGS), jax.device_put, size), 10))
    for k, (batch, state) in enumerate(drawn):
        np.testing.assert_array_equal(batch["image"], expected[k]["image"])
        resumed = batches(digits(), **SETTINGS)
        resumed.set_state(state)
        np.testing.assert_array_equal(next(resumed)["image"], expected[k + 1]["image"])


@pytest.mark.parametrize("size", [0, 1, 3])
def test_exactly_size_batches_wait_on_the_device(size):
    put = []
    stream = prefetch(batches(digits(), **SETTINGS), put.append, size)
    assert not put  # nothing is drawn before it is asked for
    for used in range(1, 5):
        next(stream)
        assert len(put) == used + size


@pytest.mark.parametrize("size", [0, 2, 50])
def test_a_finite_iterator_is_drawn_to_its_end(size):
    source = digits("test")
    drawn = [batch["label"] for batch, _ in prefetch(epoch(source, batch_size=100), jax.device_put, size)]
    expected = [source[i]["label"] for i in range(len(source))]
    np.testing.assert_array_equal(np.concatenate(drawn), expected)
