"""What samples are told: defaults, lists that are too short, and one line for what cannot be told."""

import numpy as np
import pytest

from diffusion_jax.app import resolve
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import conditions


def test_nothing_is_told_and_nothing_may_be():
    assert conditions.nothing(3, {}) == ()
    with pytest.raises(InputError, match="takes no condition, but hint, label was given"):
        conditions.nothing(3, {"label": np.arange(3), "hint": np.zeros(3)})


def test_labels_come_in_turn():
    sample_condition = conditions.labels(3)
    (default,) = sample_condition(7, {})
    np.testing.assert_array_equal(default["label"], [0, 1, 2, 0, 1, 2, 0])
    assert default["label"].dtype == np.int32
    np.testing.assert_array_equal(sample_condition(3, {"label": np.array([2, 0])})[0]["label"], [2, 0, 2])
    with_null = conditions.labels(3, null=3)(2, {"label": np.array(3)})
    np.testing.assert_array_equal(with_null[0]["label"], [3, 3])  # the one that tells nothing


def test_several_things_are_told():
    sample_condition = conditions.joined(
        label=conditions.labels(3), rest=conditions.arrays(lambda num: {}, hint=(1,), tokens=(None, 2))
    )
    given = {"label": np.array([2]), "hint": np.ones((1, 1)), "tokens": np.ones((1, 4, 2))}
    (cond,) = sample_condition(2, given)
    assert {name: x.shape for name, x in cond.items()} == {"label": (2,), "hint": (2, 1), "tokens": (2, 4, 2)}
    with pytest.raises(InputError, match="no label 3"):
        sample_condition(2, given | {"label": np.array([3])})
    with pytest.raises(InputError, match="takes no condition 'seed', only hint, tokens"):
        sample_condition(2, given | {"seed": np.array([3])})


def default(num):
    return {"tokens": np.zeros((1, 4, 8)), "hint": np.ones((2, 8, 8, 1))}


def test_arrays_are_repeated_and_missing_ones_have_a_default():
    sample_condition = conditions.arrays(default, tokens=(None, 8), hint=(8, 8, 1))
    tokens = np.arange(2 * 5 * 8, dtype=np.float64).reshape(2, 5, 8)
    (cond,) = sample_condition(3, {"tokens": tokens})
    np.testing.assert_array_equal(cond["tokens"], tokens[[0, 1, 0]])
    assert cond["tokens"].dtype == np.float32
    assert cond["hint"].shape == (3, 8, 8, 1)


def test_integers_are_told_as_floats():
    sample_condition = conditions.arrays(lambda num: {}, thickness=())
    ((one,), (other,)) = (sample_condition(3, resolve.numbers(text)) for text in ("thickness=1,2", "thickness=1.0,2"))
    np.testing.assert_array_equal(one["thickness"], [1, 2, 1])
    np.testing.assert_array_equal(one["thickness"], other["thickness"])
    assert one["thickness"].dtype == np.float32


WRONG = [
    (conditions.labels(10), {"label": np.array([9, 10])}, "no label 10: they run from 0 to 9"),
    (conditions.labels(10, null=10), {"label": np.array([10, 11])}, "no label 11: .* 0 to 9, and 10 tells nothing"),
    (conditions.labels(10), {"label": np.array([-1])}, "no label -1"),
    (conditions.labels(10), {"label": np.array([0.5])}, "whole numbers, not float64"),
    (conditions.labels(10), {"label": np.array([], int)}, "empty list"),
    (conditions.labels(10), {"hint": np.zeros(3)}, "takes no condition 'hint', only label"),
    (conditions.arrays(default, hint=(8, 8, 1)), {"hint": np.zeros((2, 8, 9, 1))}, r"give \[samples, 8, 8, 1\]"),
    (conditions.arrays(default, tokens=(None, 8)), {"tokens": np.zeros((5, 8))}, r"give \[samples, any, 8\]"),
    (conditions.arrays(default, hint=(8, 8, 1)), {"hint": np.full((2, 8, 8, 1), np.nan)}, "with NaN"),
    (conditions.arrays(default, hint=(8, 8, 1)), {"hint": np.full((2, 8, 8, 1), 1e39)}, "with NaN"),
    (conditions.arrays(default, hint=(8, 8, 1)), {"hint": np.zeros((0, 8, 8, 1))}, "give"),
    (conditions.arrays(default, hint=(8, 8, 1)), {"hint": np.zeros((1, 8, 8, 1), np.uint8)}, "type uint8"),
    (conditions.arrays(default, hint=(8, 8, 1)), {"hint": np.zeros((1, 8, 8, 1), bool)}, "type bool"),
]


@pytest.mark.parametrize(("sample_condition", "given", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_what_cannot_be_told(sample_condition, given, said):
    with pytest.raises(InputError, match=said):
        sample_condition(4, given)


def test_pictures_are_floats_or_pixels():
    sample_condition = conditions.pictures(default, hint=(8, 8, 1))
    pixels = np.full((2, 8, 8, 1), 255, np.uint8)
    pixels[1] = 0
    (cond,) = sample_condition(3, {"hint": pixels})
    np.testing.assert_array_equal(cond["hint"][:, 0, 0, 0], [1, -1, 1])
    np.testing.assert_array_equal(sample_condition(1, {"hint": 1.5 * np.ones((1, 8, 8, 1))})[0]["hint"], 1.5)
    with pytest.raises(InputError, match=r"hint reaches 255: give floats in \[-1, 1\], or pixels as uint8"):
        sample_condition(1, {"hint": pixels.astype(float)})
    with pytest.raises(InputError, match=r"give \[samples, 8, 8, 1\]"):
        sample_condition(1, {"hint": pixels[0]})


def test_each_row_is_told_every_number():
    sample_condition = conditions.swept(conditions.labels(10), "noise_level", 0.1)
    (cond,) = sample_condition(5, {"label": np.array([7, 8]), "noise_level": np.array([0, 0.3])})
    np.testing.assert_array_equal(cond["label"], [7, 7, 8, 8, 7])
    np.testing.assert_array_equal(cond["noise_level"], np.float32([0, 0.3, 0, 0.3, 0]))
    np.testing.assert_array_equal(sample_condition(2, {})[0]["noise_level"], np.float32([0.1, 0.1]))
    for wrong in ([1.5], [-0.1], [], [np.nan], [[0.1]]):
        with pytest.raises(InputError, match="noise_level is a list of numbers from 0 to 1"):
            sample_condition(2, {"noise_level": np.array(wrong)})
    with pytest.raises(InputError, match="no label 10"):
        sample_condition(2, {"label": np.array([10])})
