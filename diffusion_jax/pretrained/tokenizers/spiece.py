"""A spiece.model, the file of sentencepiece: a message of protobuf, of which a few fields say how a T5 reads texts.

The library of sentencepiece is not used. It runs whatever a file says, a character that becomes a megabyte among it,
and shows none of that beforehand; and its texts differ from those of a tokenizer.json in rare marks. So both are one:
the pieces are read here, checked, and run by the library of tokenizers.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.tokenizers.model import Model
from diffusion_jax.pretrained.tokenizers.pieces import Pieces, model, sentinels
from diffusion_jax.pretrained.tokenizers.special import LARGEST, NOTHING, Special

MOST = 16 * files.MEBIBYTE  # bytes of a file; those of 250,000 pieces have 4 MiB
NORMAL, UNKNOWN, CONTROL, USER = 1, 2, 3, 4  # kinds of pieces
UNIGRAM = 1  # the kind of model
# Numbers of fields: of the file, of a piece, and one each of the trainer and of the normaliser.
PIECE, TRAINER, NORMALIZER = 1, 2, 3
NAME, SCORE, KIND = 1, 2, 3
UNKNOWN_ID, CHARACTERS = 40, 2
# Those that must have this value, and have it where they are not given: else other tokens would come out.
ONLY_TRAINED = {3: ("model_type", UNIGRAM), 24: ("treat_whitespace_as_suffix", 0), 35: ("byte_fallback", 0)}
ONLY_NORMALIZED = {3: ("add_dummy_prefix", 1), 4: ("remove_extra_whitespaces", 1), 5: ("escape_whitespaces", 1)}


class _Said(NamedTuple):
    names: list[str]
    scores: list[float]
    kinds: list[int]
    unknown: int
    characters: bytes


def load(path: Path, extra: int) -> Model:
    """The model of a spiece.model.

    Args:
      path: of the file.
      extra: how many `sentinels` follow its pieces.

    Raises:
      InputError: the file cannot be read, is damaged, or of another kind of model.
    """
    what = str(path)
    try:
        said = _read(files.read(path, MOST), what)
    except (IndexError, UnicodeDecodeError, struct.error, TypeError, AttributeError) as error:
        raise InputError(f"{what} is no file of sentencepiece, or it is damaged; get it again") from error
    kinds = list(zip(said.names, said.kinds, strict=True))
    odd = [name for name, kind in kinds if kind not in (NORMAL, UNKNOWN, CONTROL, USER)]
    if odd:
        raise InputError(f"{what}: the piece {odd[0][:40]!r} is of a kind that is not known here")
    beside = [Special(name, special=kind == CONTROL) for name, kind in kinds if kind in (CONTROL, USER)]
    found = [*zip(said.names, said.scores, strict=True), *((name, 0.0) for name in sentinels(extra))]
    return model(Pieces(found, said.unknown, said.characters), extra, what, NOTHING._replace(further=beside))


def _read(content: bytes, what: str) -> _Said:
    """What a file says; any of the errors that `load` names where it is damaged."""
    said = _Said([], [], [], 0, b"")
    for field, value in _fields(content):
        if field == PIECE:
            if len(said.names) == LARGEST:
                raise InputError(f"{what} has more than {LARGEST} pieces")
            piece = {NAME: b"", SCORE: bytes(4), KIND: NORMAL, **dict(_fields(value))}
            said.names.append(piece[NAME].decode())
            said.scores.append(struct.unpack("<f", piece[SCORE])[0])
            said.kinds.append(piece[KIND])
        elif field == TRAINER:
            trainer = dict(_fields(value))
            _check(trainer, ONLY_TRAINED, what)
            said = said._replace(unknown=trainer.get(UNKNOWN_ID, 0))
        elif field == NORMALIZER:
            normalizer = dict(_fields(value))
            _check(normalizer, ONLY_NORMALIZED, what)
            said = said._replace(characters=normalizer.get(CHARACTERS, b""))
    if not said.names or type(said.characters) is not bytes:
        raise IndexError
    return said


def _check(given: dict[int, Any], wanted: dict[int, tuple[str, int]], what: str) -> None:
    for field, (name, value) in wanted.items():
        if given.get(field, value) != value:
            raise InputError(f"{what}: {name} = {given[field]!r:.40} is not supported; only {value}")


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message of protobuf; `IndexError` where it is cut off or is none."""
    at = 0

    def varint() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte = message[at]
            at += 1
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return found
            if shift > 63:
                raise IndexError

    def piece(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(message):
            raise IndexError
        return message[at - size : at]

    while at < len(message):
        field, kind = divmod(varint(), 8)
        if kind == 0:
            yield field, varint()
        elif kind in (1, 5):
            yield field, piece(8 if kind == 1 else 4)
        elif kind == 2:
            yield field, piece(varint())
        else:
            raise IndexError
