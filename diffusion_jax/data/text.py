"""Text as tokens, a token a character."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError


class Alphabet(NamedTuple):
    """Characters and their numbers.

    Attributes:
      symbols: the characters, each once; the token of symbols[i] is i.
    """

    symbols: str

    @property
    def size(self) -> int:
        """How many there are. A mask is often the token after the last, `size` itself."""
        return len(self.symbols)

    def encode(self, text: str) -> np.ndarray:
        """Tokens of `text`, int32 [L]. `InputError` names a character which is not in the alphabet."""
        known, codes = _codes(self.symbols), _codes(text)
        order = np.argsort(known)
        tokens = order[np.searchsorted(known[order], codes).clip(max=self.size - 1)]
        strange = known[tokens] != codes
        if strange.any():
            symbol = text[int(strange.argmax())]
            raise InputError(f"character {symbol!r} is not in the alphabet; replace it, or take another alphabet")
        return tokens.astype(np.int32)

    def decode(self, tokens: ArrayLike) -> str:
        """The text of `tokens`, integers [L]. `InputError` names a token, a mask for instance, which has none."""
        tokens = np.asarray(tokens)
        strange = tokens[(tokens < 0) | (tokens >= self.size)]
        if strange.size:
            raise InputError(f"token {strange[0]} has no character; give tokens from 0 to {self.size - 1}")
        return "".join(self.symbols[i] for i in tokens)


# A newline and printable ASCII: the default text is written in it.
ASCII = Alphabet("\n" + "".join(map(chr, range(32, 127))))

_PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "..."})
_VOCABULARY = 256  # characters: more are no alphabet, and a small model would not learn their use
_TEST = 10  # one part in so many is held out


class Windows:
    """Pieces of one long text: random access, source[i] -> {"tokens": int32 [length]}.

    Args:
      tokens: int32 [at least `length`], the text.
      length: tokens in a piece.
      stride: tokens from the beginning of one piece to that of the next.
    """

    def __init__(self, tokens, length, stride):
        self._tokens = tokens.view()
        self._tokens.flags.writeable = False  # pieces overlap and share their memory
        self._length, self._stride = length, stride

    def __len__(self):
        return (len(self._tokens) - self._length) // self._stride + 1

    def __getitem__(self, index):
        # An iteration by index ends here: a slice beyond the end would only be short.
        if not 0 <= index < len(self):
            raise IndexError(f"piece {index} of {len(self)}")
        start = int(index) * self._stride
        return {"tokens": self._tokens[start : start + self._length]}


def characters(path: str | Path | None = None, length: int = 64, split: str = "train"):
    """Pieces of a text, a token a character; numbered by `alphabet(path)`.

    The last tenth of the text is "test". A piece of "train" begins at every character, so that a model sees
    each at all positions. Pieces of "test" follow one another: each character counts once.

    Args:
      path: a text file in UTF-8, or None for the reference pages of the Python language, which come with every
        Python: some 400,000 characters of English with bits of code. They differ a little between versions. Their
        typographic signs are written in ASCII, a run of blanks is one blank and a paragraph one line.
      length: characters in a piece.
      split: "train" or "test".

    Returns:
      A source of {"tokens": int32 [length]}.

    Raises:
      InputError: no such split, a length below 1, a text shorter than 10 pieces, or a file that is missing,
        unreadable, not UTF-8 or of more than 256 different characters.
    """
    splits = {"train": 1, "test": length}
    if split not in splits:
        raise InputError(f"text has no split {split!r}; choose one of {', '.join(splits)}")
    if length < 1:
        raise InputError(f"pieces of {length} characters; give a length of at least 1")
    text = _read(path)
    if len(text) < _TEST * length:
        raise InputError(
            f"{path or 'the default text'} has {len(text)} characters, fewer than {_TEST} pieces of {length}; "
            "give more text or a lower length"
        )
    tokens = _alphabet_of(text, path).encode(text)
    end = len(tokens) - len(tokens) // _TEST
    return Windows({"train": tokens[:end], "test": tokens[end:]}[split], length, splits[split])


def alphabet(path: str | Path | None = None) -> Alphabet:
    """The alphabet of `characters(path)`: `ASCII` for the default text, which is not read for it.

    For a file: the characters that occur in it, train and test, by code point. To sample where the file is not,
    keep `alphabet(path).symbols` in the config beside the path, and say `Alphabet(symbols)` for it.

    Raises:
      InputError: as `characters`.
    """
    return ASCII if path is None else _alphabet_of(_read(path), path)


def _alphabet_of(text, path):
    if path is None:
        return ASCII
    symbols = "".join(sorted(set(text)))
    if len(symbols) > _VOCABULARY:
        raise InputError(
            f"{path} has {len(symbols)} different characters; give a text of at most {_VOCABULARY}, in one script"
        )
    return Alphabet(symbols)


def _read(path):
    if path is None:
        return _python_reference()
    path = Path(path).expanduser()
    try:
        with files.reading(path) as file:
            return file.read().decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it") from error
    except InputError as error:
        raise InputError(f"{error}; give a text file") from error


def _python_reference():
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise InputError("this Python comes without its reference pages (pydoc_data); give a text file") from error
    text = "\n\n".join(topics[name] for name in sorted(topics)).translate(_PLAIN)
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    text = "\n".join(filter(None, paragraphs))
    return text.encode("ascii", "replace").decode()  # the rest, three signs or so, become "?"


def _codes(text):
    """Code points of the characters, uint32 [L]: Python's own loop over a long text would take seconds."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
