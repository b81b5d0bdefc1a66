"""Pickles as data: a reader that can make containers, numbers and strings, and call functions of a given list.

Python's own reader imports and calls whatever a file names. Restricting what it may import leaves it setting
attributes, calling methods of what it built, and allocating what lengths in the file claim. So the few instructions
that weights need are interpreted here, and every other is refused; nothing is ever imported. How much a pickle may
hold and do is bounded: a few bytes can name a container that would take for ever to walk.
"""

import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import MEBIBYTE, Bounded

LONGEST = 64 * MEBIBYTE  # bytes of a pickle; its arrays are not in it
MOST = 2_000_000  # instructions, and entries that are handed to functions: some 40 instructions make a tensor
INTEGERS = 2**127
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"})
STRINGS = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"})
BYTES = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING"})
LITERALS = NUMBERS | STRINGS | BYTES
CONTAINERS = list | tuple | dict
# Hashing a deep tuple would overflow the stack. Numbers can be chosen to have one hash, texts cannot; so those that
# are keys are small (a list of parameters by their place).
KEYS = str | bytes | int | None
LARGEST_KEY = 2**32


class Known(NamedTuple):
    """A name, as a value: what the file's GLOBAL instruction gives. Only of names of the list something is made."""

    name: str
    make: Any


def load(file: BinaryIO, known: Mapping[str, Any], persistent: Callable[[Any], Any], what: str):
    """The next pickle of `file`, which is left where the pickle ends.

    Args:
      file: seekable, binary.
      known: "module.name" -> function that is called in its stead; all that the pickle may name.
      persistent: `id -> value` of what the pickle holds by reference.
      what: begins the messages of errors.

    Returns:
      Lists, tuples, dictionaries, numbers, strings, None, and what `known` and `persistent` returned. Attributes that
      the pickle sets on an object are dropped.

    Raises:
      InputError: the pickle calls something else, is damaged, or is larger than `LONGEST` and `MOST` allow.
    """
    try:
        return _Machine(known, persistent, what).run(Bounded(file, LONGEST))
    except InputError:
        raise
    except Exception as error:  # whatever damaged bytes lead to
        reason = (str(error).splitlines() or [""])[0][:80]
        raise InputError(f"{what} is damaged ({type(error).__name__}: {reason}); get it again") from error


class _Machine:
    """A stack, the stacks below the marks, and the memo."""

    def __init__(self, known, persistent, what):
        self.known, self.persistent, self.what = known, persistent, what
        self.stack, self.below, self.memo, self.left = [], [], {}, MOST

    def run(self, file: Any):
        for instruction, argument, _ in pickletools.genops(file):
            self.work(1)
            self.step(instruction.name, argument)
        return self.stack.pop()

    def work(self, amount: int):
        self.left -= amount
        if self.left < 0:
            raise InputError(f"{self.what} holds more than weights (over {MOST} steps); save a state dict")

    def step(self, name: str, argument: Any):
        push, pop = self.stack.append, self.stack.pop
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if name in NUMBERS and abs(argument) >= INTEGERS:
                raise ValueError("an integer of more than 16 bytes")
            case _ if name in LITERALS:
                push(argument)
            case _ if name in CONSTANTS:
                push(CONSTANTS[name])
            case "EMPTY_DICT":
                push({})
            case "EMPTY_LIST":
                push([])
            case "EMPTY_TUPLE":
                push(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(reversed([pop() for _ in range(int(name[-1]))])))
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "TUPLE":
                items = tuple(self.unmark())
                self.stack.append(items)
            case "APPEND":
                self.extend([pop()])
            case "APPENDS":
                self.extend(self.unmark())
            case "SETITEM":
                self.update([pop(), pop()][::-1])
            case "SETITEMS":
                self.update(self.unmark())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "GLOBAL":
                push(self.named(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                last, module = pop(), pop()
                if type(last) is not str or type(module) is not str:
                    raise ValueError("a name that is no text")
                push(self.named(f"{module}.{last}"))
            case "REDUCE":
                arguments, function = pop(), pop()
                push(self.called(function, arguments))
            case "BUILD":
                pop()
            case "BINPERSID":
                reference = pop()
                self.check(reference if type(reference) is tuple else ())
                push(self.persistent(reference))
            case _:
                self.check(self.stack)
                raise InputError(f"{self.what} holds more than weights (instruction {name}); save a state dict")

    def unmark(self) -> list:
        items, self.stack = self.stack, self.below.pop()
        return items

    def extend(self, items: list):
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("entries for what is no list")
        target.extend(items)

    def update(self, items: list):
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError("pairs for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            key = key.name if type(key) is Known else key  # training's files name classes of what they observe
            if not isinstance(key, KEYS) or (type(key) is int and abs(key) > LARGEST_KEY):
                raise ValueError(f"a key of type {type(key).__name__}")
            target[key] = value

    def named(self, name: str) -> Known:
        return Known(name, self.known.get(name))

    def check(self, values: Iterable[Any]):
        """Raise `InputError` for the first of `values` that is a name of no list."""
        for value in values:
            if type(value) is Known and value.name not in self.known:
                name = value.name[:100]
                raise InputError(f"{self.what} holds code: {name!r}; only weights are read, save a state dict")

    def called(self, function: Any, arguments: Any):
        if type(function) is not Known or type(arguments) is not tuple:
            raise ValueError("a call of what is no function")
        self.check([function])
        # One container may be handed over many times, and is walked each time.
        self.work(sum(len(part) for part in (arguments, *arguments) if isinstance(part, CONTAINERS)))
        return function.make(*arguments)
