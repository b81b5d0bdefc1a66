"""Captions: words as ids, thirds of ink within a digit, and what cannot be read."""

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import captions, conditions, sources
from diffusion_jax.data.captions import WORDS


def test_words_are_ids_and_the_end_is_the_largest():
    ids, mask = WORDS.encode(["a thick seven", "A  Thin\tzero", "nine", ""])
    end = WORDS.size - 1
    assert end == 15
    np.testing.assert_array_equal(ids, [[1, 4, 12, end], [1, 2, 5, end], [14, end, 0, 0], [end, 0, 0, 0]])
    np.testing.assert_array_equal(mask, ids > 0)
    assert ids.dtype == np.int32
    assert mask.dtype == np.bool_
    assert len(set(map(tuple, WORDS.encode(captions.ALL)[0]))) == len(captions.ALL) == 30


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "a thick cat": "the word 'cat' is unknown to this model, which knows a thin medium thick zero",
        "a thick seven seven": "'a thick seven seven' has 4 words; this model reads 3",
        "a " * 10_000: "has 10000 words; this model reads 3",
    }.items(),
    ids=["unknown", "long", "endless"],
)
def test_texts_that_cannot_be_read(text, said):
    with pytest.raises(InputError, match=said) as error:
        WORDS.encode(["a thin one", text])
    assert len(str(error.value)) < 200


def test_prompts_come_in_turn():
    told = conditions.prompts(WORDS.encode, captions.ALL)
    (cond,) = told(31, {})
    np.testing.assert_array_equal(cond["ids"][30], cond["ids"][0])
    (cond,) = told(3, {"prompt": np.array(["a thin one", "two"])})
    np.testing.assert_array_equal(cond["ids"], WORDS.encode(["a thin one", "two", "a thin one"])[0])
    (cond,) = told(2, {"prompt": np.array("nine")})
    np.testing.assert_array_equal(cond["mask"].sum(axis=1), [2, 2])
    for wrong in (np.array([1, 2]), np.array([], str), np.array([["a"]])):
        with pytest.raises(InputError, match="prompts are a list of texts"):
            told(2, {"prompt": wrong})
    with pytest.raises(InputError, match="takes no condition 'label', only prompt"):
        told(2, {"label": np.array([1])})


def test_thickness_is_by_thirds_of_a_digit_s_ink():
    source = captions.of_digits(sources.digits)
    train, test = source("train"), source("test")
    examples = [train[i] for i in range(len(train))]
    for digit in range(10):
        mine = [example for example in examples if example["label"] == digit]
        ink = [[e["image"].mean() for e in mine if e["thickness"] == thickness] for thickness in range(3)]
        assert max(ink[0]) <= min(ink[1]) <= max(ink[1]) <= min(ink[2])
        assert max(map(len, ink)) - min(map(len, ink)) <= 2
        ids, _ = WORDS.encode([f"a {captions.THICKNESS[mine[0]['thickness']]} {captions.DIGITS[digit]}"])
        np.testing.assert_array_equal(mine[0]["ids"], ids[0])
    # Other images are measured by the same limits.
    share = np.bincount([test[i]["thickness"] for i in range(len(test))]) / len(test)
    assert (abs(share - 1 / 3) < 0.1).all()
    with pytest.raises(InputError, match="of which each must occur"):
        captions.thirds(np.ones(3), np.arange(3))
