"""Captions of handwritten digits, "a thick seven", and the words that they are made of, as tokens."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Examples, Source
from diffusion_jax.data.sources import Mapped

THICKNESS = ("thin", "medium", "thick")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOOKED_AT = 4000  # images of which the thirds are


class Words(NamedTuple):
    """A tokenizer of a few words: each is an id from 1, padding is 0, and the end of a text is the largest id.

    Attributes:
      vocabulary: the words, in lower case; the id of vocabulary[i] is i + 1.
      length: L, ids of a text, its end among them.
    """

    vocabulary: tuple[str, ...]
    length: int

    @property
    def size(self) -> int:
        """How many ids there are: of the words, of padding and of the end."""
        return len(self.vocabulary) + 2

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 [N, L], mask bool [N, L], true at the words and the end). The empty text is its end alone.

        Raises:
          InputError: a text has a word that is not in the vocabulary, or is too long.
        """
        ids = np.zeros((len(texts), self.length), np.int32)
        mask = np.zeros((len(texts), self.length), bool)
        for row, text in enumerate(texts):
            words = str(text).lower().split()
            if len(words) >= self.length:
                raise InputError(f"{_short(text)!r} has {len(words)} words; this model reads {self.length - 1}")
            for place, word in enumerate(words):
                if word not in self.vocabulary:
                    raise InputError(
                        f"the word {_short(word)!r} is unknown to this model, which knows {' '.join(self.vocabulary)}"
                    )
                ids[row, place] = 1 + self.vocabulary.index(word)
            ids[row, len(words)] = self.size - 1
            mask[row, : len(words) + 1] = True
        return ids, mask


WORDS = Words(("a", *THICKNESS, *DIGITS), 4)


def caption(digit: int, thickness: int) -> str:
    """Of a digit 0 to 9 and a thickness 0, 1, 2: "a thick seven"."""
    return f"a {THICKNESS[thickness]} {DIGITS[digit]}"


ALL = tuple(caption(digit, thickness) for digit in range(10) for thickness in range(3))


def of_digits(source: Source) -> Source:
    """`source` of labelled digits with captions: {"image", "label", "thickness", "ids" int32 [4], "mask" bool [4]}.

    How thick an image is depends on its digit: thin, medium and thick are the thirds of the ink, the mean of the
    pixels, within the digit among the first 4000 of the images to train with.
    """

    @functools.cache
    def limits() -> np.ndarray:
        examples = source("train")
        rows = [examples[i] for i in range(min(LOOKED_AT, len(examples)))]
        return thirds(np.array([row["image"].mean() for row in rows]), np.array([row["label"] for row in rows]))

    def captioned(split: str) -> Examples:
        between = limits()

        def read(example):
            digit = int(example["label"])
            thickness = int(np.searchsorted(between[digit], example["image"].mean()))
            (ids,), (mask,) = WORDS.encode([caption(digit, thickness)])
            return {**example, "thickness": np.int32(thickness), "ids": ids, "mask": mask}

        return Mapped(source(split), read)

    return captioned


def thirds(ink: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The two amounts of ink, [10, 2], between the thirds of each digit's: of `ink` [N] and `label` [N].

    Raises:
      InputError: a digit is not among the labels, or something else is.
    """
    if set(np.unique(label)) != set(range(10)):
        raise InputError("captions are of digits from 0 to 9, of which each must occur; give data that has them")
    return np.stack([np.quantile(ink[label == digit], (1 / 3, 2 / 3)) for digit in range(10)])


def _short(text) -> str:
    return str(text)[:60]
