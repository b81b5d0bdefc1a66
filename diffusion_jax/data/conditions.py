"""What samples are told: a person's wishes as arrays, checked, one entry a sample.

An `ask` is `(num, given) -> ()` or `(cond,)`: `given` is what the person gave, name -> array, and `cond` a dictionary
of NumPy arrays [num, ...]. What is too short is repeated; what is not given has a default that shows everything.
"""

from collections.abc import Callable, Mapping

import numpy as np

from diffusion_jax.core.errors import InputError


def nothing(num: int, given: Mapping[str, np.ndarray]) -> tuple:
    """The `ask` of a model that is told nothing.

    Raises:
      InputError: something was given.
    """
    if given:
        raise InputError(f"this model takes no condition, but {', '.join(sorted(given))} was given; leave it out")
    return ()


def labels(classes: int, null: int | None = None) -> Callable:
    """The `ask` of a model that is told a label, 0 to classes - 1; by default each in turn.

    `null` may be given too: it is the label that tells nothing, of models that have one.
    """
    known = np.arange(classes) if null is None else np.append(np.arange(classes), null)
    others = f"they run from 0 to {classes - 1}" + ("" if null is None else f", and {null} tells nothing")

    def ask(num, given):
        _only(given, "label")
        wanted = np.atleast_1d(np.asarray(given.get("label", np.arange(classes))))
        if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
            raise InputError(f"labels are a list of whole numbers, not {wanted.dtype} of shape {wanted.shape}")
        if not len(wanted):
            raise InputError("an empty list of labels; give at least one")
        wrong = wanted[~np.isin(wanted, known)]
        if len(wrong):
            raise InputError(f"there is no label {wrong[0]}: {others}")
        return ({"label": np.resize(wanted, num).astype(np.int32)},)

    return ask


def arrays(default: Callable, **shapes: tuple) -> Callable:
    """The `ask` of a model that is told float arrays, such as an encoded text or a hint.

    Args:
      default: `num -> {name: [N, ...]}`, for what is not given; it may raise `InputError` where there is none.
      **shapes: of one example of each; None stands for any length.
    """

    def ask(num, given):
        _only(given, *shapes)
        found = {name: np.asarray(given[name]) for name in given}
        for name, array in found.items():
            fits = len(array.shape) == len(shapes[name]) + 1 and all(
                wanted in (None, size) for size, wanted in zip(array.shape[1:], shapes[name], strict=True)
            )
            if not fits or not len(array):
                wanted = ", ".join("any" if size is None else str(size) for size in shapes[name])
                raise InputError(f"{name} of shape {array.shape}: give [samples, {wanted}]")
            with np.errstate(over="ignore"):
                finite = np.issubdtype(array.dtype, np.floating) and np.isfinite(array.astype(np.float32)).all()
            if not finite:
                raise InputError(f"{name} of type {array.dtype} or with NaN: give finite floats")
        if set(shapes) - set(found):
            found = default(num) | found
        return ({name: np.take(x, np.arange(num) % len(x), axis=0).astype(np.float32) for name, x in found.items()},)

    return ask


def joined(**asks: Callable) -> Callable:
    """The `ask` of a model that is told several things: an `ask` for each name, and `rest` for all other names."""

    def ask(num, given):
        told = {}
        for name, one in asks.items():
            mine = {key: x for key, x in given.items() if (key not in asks if name == "rest" else key == name)}
            for cond in one(num, mine):
                told |= cond
        return (told,)

    return ask


def _only(given, *names):
    for name in given:
        if name not in names:
            raise InputError(f"this model takes no condition {name!r}, only {', '.join(names)}")
