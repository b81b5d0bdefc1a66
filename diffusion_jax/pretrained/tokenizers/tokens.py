"""Texts as the integers that a text encoder is given: the interface, and how a tokenizer of a folder is run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from diffusion_jax.core.errors import InputError

CHARACTERS = 100_000  # of one text: seconds, where each of them is a ligature of eighteen
LONGEST = 4096  # tokens of a text: attention takes the square of it


class Tokens(NamedTuple):
    """Texts in a tokenizer's vocabulary.

    Attributes:
      ids: int32 [N, L].
      mask: bool [N, L], true where there is text, its begin and its end included, and false at padding.
    """

    ids: np.ndarray
    mask: np.ndarray


class EncodeTexts(Protocol):
    """`texts [N] -> tokens [N, L]`; what does not fit into L is left out."""

    def __call__(self, texts: Sequence[str], /) -> Tokens: ...


class Cut(Protocol):
    """`text -> what of it is left out`, "" where nothing is; for a message."""

    def __call__(self, text: str, /) -> str: ...


class Tokenizer(NamedTuple):
    """How texts become tokens.

    A special token that stands in a text, such as "<|endoftext|>" or "</s>", becomes its id, as in transformers: it
    is not spelled out. So does the token of padding, where that is "!".

    Attributes:
      encode: texts to tokens. `InputError`: a text is no string, is of more than `CHARACTERS` characters, or is not
        Unicode (half a surrogate pair).
      cut: what of a text does not fit. Errors as of `encode`.
      length: L, of every text.
      size: of the vocabulary: its largest id and one. An encoder's table needs at least as many rows.
    """

    encode: EncodeTexts
    cut: Cut
    length: int
    size: int


class Sides(NamedTuple):
    """Where a text that is too short is padded, and where one that is too long is cut off: "left" or "right"."""

    padding: str = "right"
    truncation: str = "right"


def library() -> Any:
    """The library of tokenizers, or `InputError` where it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise InputError("texts need the library of tokenizers: pip install 'diffusion_jax[text]'") from error
    return tokenizers


def run(backend: Any, pad: str, length: int, sides: Sides, what: str) -> Tokenizer:
    """The interface of a `tokenizers.Tokenizer` that neither pads nor cuts off by itself.

    Args:
      backend: it; begin and end are what its post-processor adds.
      pad: the token of padding.
      length: of every text, begin and end included.
      sides: of padding and cutting.
      what: the folder, for messages.

    Raises:
      InputError: nothing of a text would fit.
    """
    room = length - backend.num_special_tokens_to_add(False)
    if room < 1 or length > LONGEST:
        raise InputError(f"{what}: texts of {length} tokens; {length - room + 1} to {LONGEST} are possible")
    padding = {"length": length, "direction": sides.padding, "pad_id": backend.token_to_id(pad), "pad_token": pad}

    def content(text: str) -> Any:
        _check(text)
        with refusing(f"{what} cannot read {text[:40]!r}"):
            return backend.encode(text, add_special_tokens=False)

    def encode(texts: Sequence[str]) -> Tokens:
        if isinstance(texts, str):
            raise InputError(f"a list of texts is expected, not the text {texts[:40]!r} itself")
        found = Tokens(np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), bool))
        for row, text in enumerate(texts):
            encoding = content(text)
            encoding.truncate(room, direction=sides.truncation)
            encoding = backend.post_process(encoding)
            encoding.pad(**padding)
            found.ids[row], found.mask[row] = encoding.ids, encoding.attention_mask
        return found

    def cut(text: str) -> str:
        places = content(text).offsets
        if len(places) <= room:
            return ""
        return text[places[room][0] :] if sides.truncation == "right" else text[: places[-room - 1][1]]

    return Tokenizer(encode, cut, length, max(backend.get_vocab().values()) + 1)


def _check(text: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"a text is expected, not {str(text)[:40]}, a {type(text).__name__}")
    if len(text) > CHARACTERS:
        raise InputError(f"a text has {len(text)} characters ({text[:40]!r}...); at most {CHARACTERS} are read")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"a text holds half a surrogate pair, {error.object[error.start]!r}; take it out") from error


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """What the library raises in the body, as an `InputError` of one line that begins with `what`.

    Among it are the panics of Rust, which are no `Exception`.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interrupt
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{what} ({line}); get the tokenizer again") from error
