"""T5's tokenizer: the likeliest pieces of each word (Kudo 2018, "Subword regularization")."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.published import shown
from diffusion_jax.pretrained.tokenizers.model import Model
from diffusion_jax.pretrained.tokenizers.special import LARGEST, NOTHING, WORD, Beside, Special
from diffusion_jax.pretrained.tokenizers.tokens import library

ROLES = {"eos_token": Special("</s>"), "unk_token": Special("<unk>"), "pad_token": Special("<pad>")}
SPACE = "▁"  # a word's begin
TOTAL = 2**20  # bytes of all pieces, T5 has a quarter; each may take 300 in the tree in which they are looked for
EXPANSION = 64  # bytes that a character may become; the longest of Unicode's are 33


class Pieces(NamedTuple):
    """A vocabulary of pieces; the id of one is its place.

    Attributes:
      pieces: piece and the logarithm of its probability.
      unknown: the id of what is none.
      characters: which characters become which others, as sentencepiece keeps it; b"" where all stay.
    """

    pieces: Sequence[tuple[str, float]]
    unknown: int
    characters: bytes


def sentinels(extra: int) -> list[str]:
    """The tokens that T5 was trained to put in the place of what it is not shown; the last comes first."""
    return [f"<extra_id_{number}>" for number in reversed(range(extra))]


def model(found: Pieces, extra: int, what: str, beside: Beside = NOTHING) -> Model:
    """T5's model of a vocabulary.

    Args:
      found: it.
      extra: how many `sentinels` there are beside, whether the vocabulary has them or not.
      what: its file, for messages.
      beside: further tokens.

    Raises:
      InputError: it is damaged, or would take more time and memory than the sizes of texts and file say.
    """
    _check_pieces(found, what)
    _check_characters(found.characters, what)
    beside = beside._replace(further=[*beside.further, *map(Special, sentinels(extra))])
    settings = {
        "tokenizer_class": (None, "T5Tokenizer", "T5TokenizerFast"),
        "do_lower_case": (None, False),
        "add_prefix_space": (None, False, True),  # to transformers all are one: a space stands before every word
        "unk_id": (None, found.unknown),
    }
    return Model(lambda roles: _backend(found), ROLES, (None, "eos_token"), beside, settings)


def _check_pieces(found: Pieces, what: str) -> None:
    names, scores = [piece for piece, _ in found.pieces], [score for _, score in found.pieces]
    if not 0 < len(names) <= LARGEST:
        raise InputError(f"{what} has {len(names)} pieces; 1 to {LARGEST} are possible")
    odd = [name for name in names if type(name) is not str or not 0 < len(name) <= WORD]
    if odd:
        raise InputError(f"{what}: {shown(odd[0])} is no piece of 1 to {WORD} characters")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{what}: the piece {shown(twice[0])} comes twice; get the tokenizer again")
    if sum(len(name.encode(errors="replace")) for name in names) > TOTAL:
        raise InputError(f"{what} has pieces of more than {TOTAL} bytes in all; no tokenizer known here has as many")
    if not all(type(score) in (int, float) and abs(score) < 1e30 for score in scores):
        raise InputError(f"{what}: a piece has a score that is no number; get the tokenizer again")
    if type(found.unknown) is not int or not 0 <= found.unknown < len(names):
        raise InputError(f"{what}: the id {shown(found.unknown)} of what is unknown is none of its {len(names)}")


def _check_characters(rules: bytes, what: str) -> None:
    """Raise `InputError` where a text could become many times as long.

    Four bytes say how long a tree is; behind it stand the replacements, each up to a zero.
    """
    if not rules:
        return
    tree = int.from_bytes(rules[:4], "little")
    if len(rules) < 4 + tree or max(map(len, rules[4 + tree :].split(b"\0"))) > EXPANSION:
        raise InputError(f"{what}: its rules of characters are damaged; get the tokenizer again")


def _backend(found: Pieces) -> Any:
    """A text is split at spaces, and each word into pieces."""
    theirs = library()
    split = theirs.pre_tokenizers
    made = theirs.Tokenizer(theirs.models.Unigram([*found.pieces], unk_id=found.unknown, byte_fallback=False))
    if found.characters:
        made.normalizer = theirs.normalizers.Precompiled(found.characters)
    words = split.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    made.pre_tokenizer = split.Sequence([split.WhitespaceSplit(), words])
    return made
