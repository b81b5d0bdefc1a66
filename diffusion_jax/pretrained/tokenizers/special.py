"""Tokens that stand beside a vocabulary's own, as a tokenizer's files say them: begin, end, padding, and others."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.published import shown

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FURTHER = ("additional_special_tokens", "extra_special_tokens")
WORD = 256  # characters of a token
MOST = 4096  # of them; to add them takes the square of it
LARGEST = 1_000_000  # entries of a vocabulary, and ids


class Special(NamedTuple):
    """A token that is split out of a text before all else.

    Attributes:
      content: the token.
      single_word: only where no letter is beside it.
      lstrip: with the spaces on its left.
      rstrip: with those on its right.
      normalized: it is looked for in the normalised text, in small letters say, and not in the text as given.
      special: whether it is left out where ids become text again.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


class Beside(NamedTuple):
    """The tokens beside a vocabulary, as far as files say them.

    Attributes:
      roles: role, one of `ROLES` -> token.
      numbered: id -> token, of those that come with one.
      further: tokens that have neither.
    """

    roles: dict[str, Special]
    numbered: Mapping[int, Special]
    further: Iterable[Special]

    def ordered(self) -> dict[str, tuple[int | None, Special]]:
        """Content -> id, where it comes with one, and token.

        As in transformers: of equal contents one with an id counts, else the last (begin, end and padding may be one
        token, and each has its flags); and those without an id get theirs in this order.
        """
        roles = [self.roles[role] for role in ROLES if role in self.roles]
        numbered = {one.content: (number, one) for number, one in sorted(self.numbered.items())}
        rest: dict[str, tuple[int | None, Special]] = {one.content: (None, one) for one in (*roles, *self.further)}
        return {**numbered, **rest, **numbered}


NOTHING = Beside({}, {}, ())


def told(given: Mapping[str, Any], what: str, special: bool) -> tuple[dict[str, Special], list[Special]]:
    """The tokens with a role and those without, of a file's names of `ROLES` and `FURTHER`; None is as absent.

    Args:
      given: name -> a token, or of `FURTHER` a list or an object of tokens.
      what: the file, for messages.
      special: whether an object that does not say so is a special token.

    Raises:
      InputError: as of `token`, or there are more than `MOST`.
    """
    roles, further = {}, []
    for name, value in given.items():
        if value is None:
            continue
        if name in ROLES:
            roles[name] = token(value, f"{what}: {name}", special)
            continue
        value = [*value.values()] if type(value) is dict else value
        if type(value) is list and len(value) <= MOST:
            further += [token(one, f"{what}: {name}", special) for one in value]
        else:
            raise InputError(f"{what}: {name} = {shown(value)} is no list of at most {MOST} tokens")
    return roles, further


def numbered(given: Any, what: str) -> dict[int, Special]:
    """The tokens of an object {"7": token}, by their ids.

    Raises:
      InputError: as of `token` and `identity`, or there are more than `MOST`, or an id comes twice.
    """
    if type(given) is not dict or len(given) > MOST:
        raise InputError(f"{what} = {shown(given)} is no object of at most {MOST} tokens")
    decimal = {name: name.isascii() and name.isdecimal() and len(name) < 10 for name in given}
    found = {
        identity(int(name) if decimal[name] else name, what): token(one, what, special=False)
        for name, one in given.items()
    }
    if len(found) < len(given):
        raise InputError(f"{what}: an id comes twice; get the tokenizer again")
    return found


def token(given: Any, what: str, special: bool) -> Special:
    """A token as files say it: a string, which is a special one, or an object with flags.

    Args:
      given: it.
      what: where it stands, for messages.
      special: whether an object that does not say so is a special token.

    Raises:
      InputError: it is neither, or not of 1 to `WORD` characters.
    """
    said = {"content": given, "special": True} if isinstance(given, str) else given
    if type(said) is not dict or not said.keys() <= {*Special._fields, "__type"}:
        raise InputError(f"{what}: {shown(given)} is no token")
    flags = {"special": special} | {name: flag for name, flag in said.items() if name not in ("__type", "content")}
    content = said.get("content")
    if type(content) is not str or not 0 < len(content) <= WORD:
        raise InputError(f"{what}: {shown(given)} is no token of 1 to {WORD} characters")
    if not all(type(flag) is bool for flag in flags.values()):
        raise InputError(f"{what}: {shown(given)} has a flag that is neither true nor false")
    return Special(content, **{"normalized": not flags["special"]} | flags)


def identity(given: Any, what: str) -> int:
    """`given`, or `InputError` where it is no id."""
    if type(given) is not int or not 0 <= given < LARGEST:
        raise InputError(f"{what}: {shown(given)} is no id; ids are integers from 0 to {LARGEST - 1}")
    return given
