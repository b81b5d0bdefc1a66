"""A published network: the module, what it is initialised with, and the table of its weights; values of configs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from numpy.typing import DTypeLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained import entries, heard
from diffusion_jax.pretrained.entries import Entry


class Network(NamedTuple):
    """A published architecture.

    Attributes:
      model: the module.
      example: shapes of x, time and cond, as its call takes them (the smallest; others work as well); of x alone
        where it is an autoencoder, and of what it encodes where it is an encoder.
      entries: which of the published arrays is which parameter.
      beside: name -> shape and dtype of the parameters that are not the module's own: a codebook.
    """

    model: nn.Module
    example: tuple
    entries: list[Entry]
    beside: Mapping[str, jax.ShapeDtypeStruct] = MappingProxyType({})

    def template(self) -> dict[str, Any]:
        """Shapes and dtypes of its parameters; nothing is computed."""
        return jax.eval_shape(self.model.init, jax.random.key(0), *self.example)["params"] | dict(self.beside)

    def read(self, weights: Mapping[str, Any], dtype: DTypeLike | None = np.float32) -> dict[str, Any]:
        """Its parameters, of published weights (`entries.read`).

        Args:
          weights: name -> array.
          dtype: of the parameters; None leaves each array in the file's own. A module computes in its own `dtype`,
            whatever its parameters are: it converts each when it uses it.
        """
        template = self.template()
        if dtype is None:
            return entries.read(entries.as_stored(template, self.entries, weights), self.entries, weights)
        template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), template)
        return entries.read(template, self.entries, weights)


def shape(*sizes: int, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    """An array of a `Network.example`."""
    return jax.ShapeDtypeStruct(sizes, dtype)


LARGEST = 100_000  # of any count or width: beyond it a network takes hours to describe, and no memory holds it
LAYERS = 128  # of blocks one after the other, on a level where there are several
SIDE = 8192  # of images, or of what an autoencoder made of them
LEVELS = 12  # of a U-Net: its images' sides are multiples of 2^11 then


class Values:
    """The values of a config, with defaults; what the network here cannot do is refused by name and value.

    Args:
      given: the config; names that begin with "_" are notes.
      defaults: all that are known, with what holds where they are absent. Of other names,
        None and False are taken as off.
      what: the class, which begins the messages of errors; what diffusers' class drops is dropped (`heard.drops`).
    """

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any], what: str):
        self.values, self.what = {**defaults}, what
        for name, value in given.items():
            if name in defaults:
                self.values[name] = value
            elif not (name.startswith("_") or value is None or value is False or heard.drops(what, name)):
                self.refuse(name, value)

    def __getitem__(self, name: str):
        return self.values[name]

    def only(self, name: str, *allowed):
        """The value, which must be one of `allowed`."""
        value = self[name]
        # True is not 1 here, but 1.0 is.
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            self.refuse(name, value, f"only {' or '.join(map(repr, dict.fromkeys(allowed)))}")
        return value

    def empty(self, name: str, remedy: str) -> None:
        """Refuse the value unless it is None or holds nothing."""
        if self[name] not in (None, {}, [], ()):
            self.refuse(name, self[name], remedy)

    def integer(self, name: str, least: int = 1, most: int = LARGEST) -> int:
        """The value, an integer in [least, most]."""
        if type(self[name]) is not int or not least <= self[name] <= most:
            self.refuse(name, self[name], f"an integer from {least} to {most} is expected")
        return self[name]

    def integers(self, name: str, most: int = LARGEST, least: int = 1) -> tuple[int, ...]:
        """The value, a list of integers in [least, most], one a level: at most `LEVELS`."""
        value = self[name]
        fit = type(value) in (list, tuple) and all(type(n) is int and least <= n <= most for n in value)
        if not fit or not 1 <= len(value) <= LEVELS:
            kind = "positive integers" if least else "integers from 0"
            self.refuse(name, value, f"a list of {kind} is expected, at most {LEVELS} up to {most}")
        return tuple(value)

    def check_size(self, name: str) -> None:
        """Refuse the value unless it is None, the side of a square, or height and width, in [1, `SIDE`]."""
        value = self[name]
        sides = value if type(value) in (list, tuple) and len(value) == 2 else (value,)
        if value is not None and not all(type(side) is int and 0 < side <= SIDE for side in sides):
            self.refuse(name, value, f"integers from 1 to {SIDE} are expected, one or height and width")

    def number(self, name: str, low: float, high: float) -> float:
        """The value, a number in [low, high]."""
        value = self[name]
        if type(value) not in (int, float) or not low <= value <= high:
            self.refuse(name, value, f"a number from {low:g} to {high:g} is expected")
        return value

    def numbers(self, name: str, count: int, low: float, high: float) -> tuple[float, ...]:
        """The value, a list of `count` numbers in [low, high]."""
        value = self[name]
        fit = type(value) in (list, tuple) and all(type(n) in (int, float) and low <= n <= high for n in value)
        if not fit or len(value) != count:
            self.refuse(name, value, f"a list of {count} numbers from {low:g} to {high:g} is expected")
        return tuple(value)

    def refuse(self, name: str, value: Any, remedy: str = "it is not known here"):
        """Raise `InputError` for a value."""
        raise InputError(f"{self.what}: {name} = {shown(value)} is not supported; {remedy}")


def shown(value: Any) -> str:
    """The value, cut off: integers of thousands of digits and deep lists Python does not write."""
    try:
        return repr(value)[:100]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
