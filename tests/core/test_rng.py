"""Streams of keys do not meet; tosses of coins: how often, and that those of one hash are independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng

SIZE = 2**18


def toss(heads, seed=0):
    return np.asarray(rng.coins(jax.random.key(seed), SIZE, heads))


def deviations(happened, probability):
    """How far the frequency is from `probability`, in standard deviations."""
    return abs(happened.mean() - probability) / np.sqrt(probability * (1 - probability) / happened.size)


@pytest.mark.parametrize("heads", [1, 6554, 2**15, 58982, 2**16 - 1])
def test_coins_fall_as_often_as_they_should(heads):
    """2^18 tosses (seed 0), in all and of each quarter, within 5 deviations: one false alarm in 3 * 10^5 of 25."""
    found = toss(heads)
    assert found.dtype == bool
    assert deviations(found, heads / 2**16) < 5
    for quarter in found.reshape(4, -1):
        assert deviations(quarter, heads / 2**16) < 5


def test_always_and_never():
    assert toss(2**16).all()
    assert not toss(0).any()


@pytest.mark.parametrize("heads", [6554, 2**15])
def test_coins_of_a_hash_are_independent(heads):
    """Each two of its four fall together as independent ones do, as above; the control, one with itself, does not."""
    quarters, both = toss(heads).reshape(4, -1), (heads / 2**16) ** 2
    for i in range(4):
        for j in range(4):
            found = deviations(quarters[i] & quarters[j], both)
            assert found < 5 if i != j else found > 50


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1023])
def test_any_number_of_coins(size):
    assert rng.coins(jax.random.key(0), size, 2**15).shape == (size,)


def test_another_key_other_coins():
    """Of two keys' tosses half agree, within 5 deviations."""
    assert deviations(toss(2**15) == toss(2**15, seed=1), 0.5) < 5


def test_streams_of_random_keys_do_not_meet():
    root = jax.random.key(0)
    keys = [
        jax.random.key_data(k).tobytes()
        for name in ("init", "train", "sample", "preview")
        for step in range(3)
        for k in rng.per_example(rng.stream(root, name, step), jnp.arange(4))
    ]
    assert len(set(keys)) == len(keys)
