"""Pickles as data: a reader that can make containers, numbers and strings, and call functions of a given list.

Python's own reader imports and calls whatever a file names. Restricting what it may import leaves it setting
attributes, calling methods of what it built, and allocating what lengths in the file claim. So the few instructions
that weights need are interpreted here, and every other is refused; nothing is ever imported.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from diffusion_jax.errors import InputError

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"})
STRINGS = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"})
BYTES = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING"})
LITERALS = NUMBERS | STRINGS | BYTES
KEYS = str | bytes | int | float | None  # hashing a deep tuple would overflow the stack


class Known(NamedTuple):
    """A name of the list, as a value: what the file's GLOBAL instruction gives."""

    name: str
    make: Callable


def load(file, known: Mapping[str, Callable], persistent: Callable, what: str):
    """The next pickle of `file`, which is left where the pickle ends.

    Args:
      file: seekable, binary, whose `read(n)` takes no more memory than there are bytes left.
      known: "module.name" -> function that is called in its stead; all that the pickle may name.
      persistent: `id -> value` of what the pickle holds by reference.
      what: begins the messages of errors.

    Returns:
      Lists, tuples, dictionaries, numbers, strings, None, and what `known` and `persistent` returned. Attributes that
      the pickle sets on an object are dropped.

    Raises:
      InputError: the pickle names something else, or is damaged.
    """
    try:
        return _Machine(known, persistent, what).run(file)
    except InputError:
        raise
    except Exception as error:  # whatever damaged bytes lead to
        reason = (str(error).splitlines() or [""])[0][:80]
        raise InputError(f"{what} is damaged ({type(error).__name__}: {reason}); get it again") from error


class _Machine:
    """A stack, the stacks below the marks, and the memo."""

    def __init__(self, known, persistent, what):
        self.known, self.persistent, self.what = known, persistent, what
        self.stack, self.below, self.memo = [], [], {}

    def run(self, file):
        for instruction, argument, _ in pickletools.genops(file):
            self.step(instruction.name, argument)
        return self.stack.pop()

    def step(self, name, argument):
        push, pop = self.stack.append, self.stack.pop
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
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
                self.stack = [*self.below.pop(), tuple(self.stack)]
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
                push(self.named(f"{module}.{last}"))
            case "REDUCE":
                arguments, function = pop(), pop()
                push(self.called(function, arguments))
            case "BUILD":
                pop()
            case "BINPERSID":
                push(self.persistent(pop()))
            case _:
                raise InputError(f"{self.what} holds more than weights (instruction {name}); save a state dict")

    def unmark(self) -> list:
        items, self.stack = self.stack, self.below.pop()
        return items

    def extend(self, items):
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("entries for what is no list")
        target.extend(items)

    def update(self, items):
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError("pairs for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, KEYS):
                raise ValueError(f"a key of type {type(key).__name__}")
            target[key] = value

    def named(self, name: str) -> Known:
        if name not in self.known:
            raise InputError(f"{self.what} holds code: {name[:100]!r}; only weights are read, save a state dict")
        return Known(name, self.known[name])

    def called(self, function, arguments):
        if type(function) is not Known or type(arguments) is not tuple:
            raise ValueError("a call of what is no function")
        return function.make(*arguments)
