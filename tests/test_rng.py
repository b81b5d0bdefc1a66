"""Random words: where they lie, and that those of one hash have nothing to do with each other."""

import jax
import numpy as np
import pytest

from diffusion_jax import rng

SIZE = 2**18


@pytest.fixture(scope="module")
def words():
    return np.asarray(rng.words(jax.random.key(0), SIZE))


def _excess(counts):
    """Chi squared of equal frequencies, in standard deviations from its mean."""
    expected = counts.sum() / counts.size
    return (((counts - expected) ** 2).sum() / expected - counts.size) / np.sqrt(2 * counts.size)


def test_words_are_uniform(words):
    """2^18 words (seed 0): upper and lower bytes' chi squared within 5 deviations, one false alarm in 10^5 or so.

    The control, the larger of two words, is out by far.
    """
    assert words.dtype == np.uint32
    for byte in (words >> 8, words & 255):
        assert abs(_excess(np.bincount(byte, minlength=256))) < 5
    assert _excess(np.bincount(np.maximum(words[::2], words[1::2]) >> 8, minlength=256)) > 100


def test_words_of_a_hash_are_independent(words):
    """Joint frequencies of the upper 4 bits of each two of the four words that a hash gives, as above.

    The control pairs words with themselves.
    """
    quarters = (words >> 12).reshape(4, -1)
    for i in range(4):
        for j in range(4):
            excess = _excess(np.bincount(16 * quarters[i] + quarters[j], minlength=256))
            assert abs(excess) < 5 if i != j else excess > 100


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1023])
def test_any_number_of_words(size):
    assert rng.words(jax.random.key(0), size).shape == (size,)


def test_another_key_other_words(words):
    other = np.asarray(rng.words(jax.random.key(1), SIZE))
    assert (other == words).mean() < 1e-3
