"""The values of a config, each described once: what it is, what it may be, and what 0 means.

    config = Config(seed=values.whole_number(0, "of every random number", 0, 2**32 - 1))
    config.data = Config(length=values.count(64, "characters in a piece"))     # declares a value
    config.data.length = 128                                                   # changes it
    config.data.length                                                         # 128

A `Config` is a `ConfigDict`, read and changed like any. Where a `Value` is assigned, its default becomes the value
and its description is kept. `--help`, the checks of overrides, config files and config.json (`checked`), and
docs/measured/configs.md are all made of descriptions. A value without one may be whatever has the type of its
default.
"""

import operator
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from ml_collections import ConfigDict

from diffusion_jax.core.errors import InputError

MOST = 2_000_000_000  # steps are counted in int32
REFUSALS = (TypeError, ValueError, KeyError, OverflowError)  # what a `Kind` refuses by


class Kind(Protocol):
    """What a value may be; plain data, so that configs can be compared, copied and pickled.

    Attributes:
      says: for a person: "a whole number from 1 to 64".
      read: `text -> value`, from a command line.
      take: `value -> value`, from Python or JSON; what it gives back is what configs hold. Both raise one of
        `REFUSALS` for what the value may not be.
    """

    @property
    def says(self) -> str: ...

    def read(self, text: str) -> Any: ...

    def take(self, value: Any) -> Any: ...


class Value(NamedTuple):
    """A described value: its default, what it is ("examples of an update"), and what it may be."""

    default: object
    about: str
    kind: Kind


# ---- Kinds.


class Whole(NamedTuple):
    """Whole numbers from `least` to `most`; and 0, where `zero` says what it means."""

    least: int
    most: int
    zero: str = ""

    @property
    def says(self):
        span = f"of {self.least:,} or more" if self.most == MOST else f"from {self.least:,} to {self.most:,}"
        return f"a whole number {span}{_or_zero(self.zero)}"

    def read(self, text: str):
        return self.take(int(text))

    def take(self, value: Any):
        number = operator.index(value)
        if isinstance(value, bool) or not (self.least <= number <= self.most or (self.zero and number == 0)):
            raise ValueError
        return number


class Real(NamedTuple):
    """Finite numbers from `least` to `most`, or `below` it; and 0, where `zero` says what it means."""

    least: float
    most: float
    zero: str = ""
    below: bool = False

    @property
    def says(self):
        end = f", below {self.most:.6g}" if self.below else f" to {self.most:.6g}"
        return f"a number from {self.least:.6g}{end}{_or_zero(self.zero)}"

    def read(self, text: str):
        return self.take(float(text))

    def take(self, value: Any):
        number = float(value) + 0.0  # no -0
        inside = self.least <= number < self.most or (number == self.most and not self.below)
        if isinstance(value, bool | str) or not (inside or (self.zero and number == 0)):
            raise ValueError
        return number


class Truth(NamedTuple):
    """True or False."""

    @property
    def says(self):
        return "True or False"

    def read(self, text: str):
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]

    def take(self, value: Any):
        if not isinstance(value, bool):
            raise TypeError
        return value


class Text(NamedTuple):
    """Text of one line."""

    @property
    def says(self):
        return "a text of one line"

    def read(self, text: str):
        return self.take(text)

    def take(self, value: Any):
        if not isinstance(value, str) or len(value) > 4096 or not all(map(_shown, value)):
            raise ValueError
        return value


class Word(NamedTuple):
    """One of some words."""

    words: tuple[str, ...]

    @property
    def says(self):
        return f"one of {', '.join(self.words)}"

    def read(self, text: str):
        return self.take(text)

    def take(self, value: Any):
        if not isinstance(value, str) or value not in self.words:
            raise ValueError
        return value


class Several(NamedTuple):
    """Tuples of `least` to `most` entries; a command line gives (1,2), or 1,2, or () for none."""

    of: Kind
    least: int = 0
    most: int = 64

    @property
    def says(self):
        number = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        return f"a list of {number}, each {self.of.says}"

    def read(self, text: str):
        text = text.strip()
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        entries = text.removesuffix(",").split(",") if text.strip() else []
        return self.take([self.of.read(entry.strip()) for entry in entries])

    def take(self, value: Any):
        if not isinstance(value, list | tuple) or not self.least <= len(value) <= self.most:
            raise ValueError
        return tuple(map(self.of.take, value))


class Perhaps(NamedTuple):
    """A value of a kind, or None."""

    of: Kind

    @property
    def says(self):
        return f"{self.of.says}, or None"

    def read(self, text: str):
        return self.of.read(text)

    def take(self, value: Any):
        return None if value is None else self.of.take(value)


def like(*examples) -> Kind:
    """What a value without a description may be: what has the type of its default, here of all `examples`.

    Raises:
      InputError: they are of no type that a config.json can hold.
    """
    if all(isinstance(example, list | tuple) for example in examples):
        entries = [entry for example in examples for entry in example]
        return Several(like(*entries) if entries else ANY_NUMBER, most=10_000)
    for kind in (Truth(), Whole(-(2**53), 2**53), ANY_NUMBER, Text(), Perhaps(Text())):
        try:
            for example in examples:
                kind.take(example)
        except REFUSALS:
            continue
        return kind
    raise InputError(f"{short(examples[0])}: a config holds finite numbers, texts, True or False, and lists of them")


ANY_NUMBER = Real(-1e300, 1e300)


def _or_zero(zero: str) -> str:
    return f", or 0: {zero}" if zero else ""


def _shown(character: str) -> bool:
    return character.isprintable() or "\udc80" <= character <= "\udcff"  # a file's name in another encoding


# ---- Described values.


def count(default: int, about: str, most: int = MOST, zero: str = "", least: int = 1) -> Value:
    """How many there are of something; 0 only where `zero` says what it means."""
    return Value(default, about, Whole(least, most, zero))


def whole_number(default: int, about: str, least: int, most: int) -> Value:
    """A whole number that counts nothing."""
    return Value(default, about, Whole(least, most))


def number(default: float, about: str, least: float, most: float, zero: str = "") -> Value:
    """A finite number; 0 beyond its range only where `zero` says what it means."""
    return Value(default, about, Real(least, most, zero))


def share(default: float, about: str, below: bool = False) -> Value:
    """A part of 1, from 0 to 1 or `below` it."""
    return Value(default, about, Real(0.0, 1.0, below=below))


def flag(default: bool, about: str) -> Value:
    """Whether something is done."""
    return Value(default, about, Truth())


def text(default: str, about: str) -> Value:
    """A text of one line, such as a path."""
    return Value(default, about, Text())


def choice(default: str, about: str, *names: str) -> Value:
    """One of some words."""
    return Value(default, about, Word(names))


def listed(default: tuple, about: str, of: Kind, least: int = 0, most: int = 64) -> Value:
    """Several values, each as `of` says."""
    return Value(default, about, Several(of, least, most))


# ---- Configs of them.


class Config(ConfigDict):
    """A `ConfigDict` that keeps the descriptions of its values; sections are dictionaries, or such configs.

    A value is of any type until it is `checked`, so that what is wrong with it is said by its description.
    """

    def __init__(self, initial_dictionary: Mapping | None = None, **entries):
        object.__setattr__(self, "_described", {})
        super().__init__(type_safe=False, sort_keys=False)
        for name, value in {**(initial_dictionary or {}), **entries}.items():
            self[name] = value

    def __setitem__(self, key, value):
        if isinstance(value, Value):
            self._described[key] = value
            value = value.default
        super().__setitem__(key, Config(value) if type(value) is dict else value)

    def copy_and_resolve_references(self, visit_map: Any = None):
        """As of `ConfigDict`, with the descriptions."""
        copy = super().copy_and_resolve_references(visit_map)
        copy._described.update(self._described)
        return copy

    def __setstate__(self, state):
        super().__setstate__(state)
        self._described.update(state["_described"])

    def described(self, name: str) -> Value | None:
        """The description of the value `name` of this section; None where it was given none."""
        return self._described.get(name)


class _Watched(Config):
    """A config that notes which of its values are read."""

    def __init__(self, config: Mapping = MappingProxyType({}), seen: set[str] | None = None, prefix: str = ""):
        object.__setattr__(self, "_seen", set() if seen is None else seen)
        object.__setattr__(self, "_prefix", prefix)
        super().__init__()
        for name, value in config.items():
            section = isinstance(value, ConfigDict)
            self[name] = _Watched(value, self._seen, f"{prefix}{name}.") if section else value

    def __getitem__(self, key):
        self._seen.add(f"{self._prefix}{key}")
        return super().__getitem__(key)


def watched(config: ConfigDict) -> tuple[ConfigDict, set[str]]:
    """A locked copy of `config`, and the keys of what has been read of it, which grows as more is read."""
    copy = _Watched(config)
    return copy.lock(), copy._seen


def walk(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, object, Value]]:
    """All values: (key, what it is now, its description), `key` with the names of its sections: "train.steps".

    Raises:
      InputError: a value without a description is of no type that a config can hold; it is named.
    """
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, ConfigDict):
            yield from walk(value, f"{key}.")
            continue
        about = config.described(name) if isinstance(config, Config) else None
        if about is None:
            try:
                about = Value(value, "", like(value))
            except InputError as error:
                raise InputError(f"{key} = {error}") from error
        yield key, value, about


def checked(config: ConfigDict, changes: Mapping[str, object] | None = None, where: str = "") -> Config:
    """A locked copy of `config` in which every value is one that its description allows.

    Args:
      config: with values of any type.
      changes: values by key, instead of those that are there.
      where: they come from, for the message.

    Raises:
      InputError: the first value that is not, by its key, with what it may be and what it is.
    """
    result, changes = Config(), changes or {}
    for key, value, about in walk(config):
        *sections, name = key.split(".")
        section = result
        for part in sections:
            if part not in section:
                section[part] = Config()
            section = section[part]
        value = changes.get(key, value)
        try:
            taken = about.kind.take(value)
        except REFUSALS:
            raise refusal(key, short(value), about, where) from None
        section[name] = about
        section[name] = taken
    return result.lock()


def listing(config: ConfigDict, width: int = 116) -> str:
    """All values for a terminal: key, what it is now, and in words what it is and may be."""
    rows = [(key, str(value) if value != "" else "''", about) for key, value, about in walk(config)]
    first, second = (max(len(row[i]) for row in rows) + 2 for i in (0, 1))
    lines = []
    for key, value, about in rows:
        head = f"  {key:<{first}}{value:<{second}}"
        words = f"{about.about}: {about.kind.says}" if about.about else about.kind.says
        lines += textwrap.wrap(words, width, initial_indent=head, subsequent_indent=" " * len(head))
    return "\n".join(lines)


def refusal(key: str, given: str, about: Value, where: str = "") -> InputError:
    """What is said to who gives `given` where `about` does not allow it."""
    meaning = f" ({about.about})" if about.about else ""
    return InputError(f"{where}{key}={given}: give {about.kind.says}{meaning}")


def short(value: Any) -> str:
    """`value` for a message: a part of its first line."""
    try:
        text = str(value) if isinstance(value, int | float) else ascii(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
