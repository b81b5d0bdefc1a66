"""What samples are told: a person's wishes as arrays, checked, one entry a sample.

A `sample_condition` is `(num, given) -> ()` or `(cond,)`: `given` holds the user's arrays by name, and `cond` is a
dictionary of NumPy arrays [num, ...]. Short arrays are repeated; missing ones have a default that shows everything.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import DefaultCondition, EncodeTexts, SampleCondition
from diffusion_jax.data import images

BRIGHTEST = 10.0  # of images in [-1, 1] with noise on them


def nothing(num: int, given: Mapping[str, np.ndarray]) -> tuple:
    """The `sample_condition` of a model that is told nothing.

    Raises:
      InputError: something was given.
    """
    if given:
        raise InputError(f"this model takes no condition, but {', '.join(sorted(given))} was given; leave it out")
    return ()


def labels(classes: int, null: int | None = None) -> SampleCondition:
    """The `sample_condition` of a model that is told a label, 0 to classes - 1; by default each in turn.

    `null` may be given too: it is the label that tells nothing, of models that have one.
    """
    known = np.arange(classes) if null is None else np.append(np.arange(classes), null)
    others = f"they run from 0 to {classes - 1}" + ("" if null is None else f", and {null} tells nothing")

    def sample_condition(num, given):
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

    return sample_condition


def prompts(encode: EncodeTexts, default: Sequence[str]) -> SampleCondition:
    """The `sample_condition` of a model that is told texts, "prompt"; {"ids" int32 [num, L], "mask" bool [num, L]}.

    Args:
      encode: `texts -> (ids, mask)`, a tokenizer.
      default: the texts of samples where none is given, each in turn.
    """

    def sample_condition(num, given):
        _only(given, "prompt")
        texts = np.atleast_1d(np.asarray(given.get("prompt", default)))
        if texts.ndim != 1 or not len(texts) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"prompts are a list of texts, not {texts.dtype} of shape {texts.shape}")
        ids, mask = encode([str(text) for text in texts])
        row = np.arange(num) % len(texts)
        return ({"ids": ids[row], "mask": mask[row]},)

    return sample_condition


def arrays(default: DefaultCondition, masks: Collection[str] = (), **shapes: tuple) -> SampleCondition:
    """The `sample_condition` of a model that is told float arrays, such as an encoded text or a hint.

    Integers are converted, so `--condition thickness=1` is as good as `thickness=1.0`.

    Args:
      default: `num -> {name: [N, ...]}`, for what is not given; it may raise `InputError` where there is none.
      masks: the names of those that are bool.
      **shapes: of one example of each; None stands for any length.
    """

    def sample_condition(num, given):
        _only(given, *shapes)
        found = {name: np.asarray(given[name]) for name in given}
        for name, array in found.items():
            fits = len(array.shape) == len(shapes[name]) + 1 and all(
                wanted in (None, size) for size, wanted in zip(array.shape[1:], shapes[name], strict=True)
            )
            if not fits or not len(array):
                wanted = ", ".join("any" if size is None else str(size) for size in shapes[name])
                raise InputError(f"{name} of shape {array.shape}: give [samples, {wanted}]")
            # Bytes are refused: those of a picture run to 255, not to 1.
            number = any(np.issubdtype(array.dtype, kind) for kind in (np.floating, np.integer))
            number = number or (array.dtype == bool and name in masks)
            with np.errstate(over="ignore"):
                finite = number and array.dtype != np.uint8 and np.isfinite(array.astype(np.float32)).all()
            if not finite:
                raise InputError(
                    f"{name} of type {array.dtype} or with NaN: give finite floats or integers, not bytes"
                )
        if set(shapes) - set(found):
            found = default(num) | found
        return ({name: in_turn(x if x.dtype == bool else x.astype(np.float32), num) for name, x in found.items()},)

    return sample_condition


def pictures(default: DefaultCondition, **shapes: tuple) -> SampleCondition:
    """As `arrays`, of images in [-1, 1], or noisy ones about there; uint8 ones are pixels, 0 to 255."""
    told = arrays(default, **shapes)

    def sample_condition(num, given):
        known = {name: images.to_float(x) if x.dtype == np.uint8 else x for name, x in _arrays(given)}
        (cond,) = told(num, known)
        for name, x in cond.items():
            if np.abs(x).max() > BRIGHTEST:
                raise InputError(f"{name} reaches {np.abs(x).max():g}: give floats in [-1, 1], or pixels as uint8")
        return (cond,)

    return sample_condition


def swept(rest: SampleCondition, name: str, default: float) -> SampleCondition:
    """All that `rest` tells, at each of several numbers `name` in [0, 1], which vary fastest.

    So name=0,0.1,0.3 draws three samples of the first picture, then three of the second.
    """

    def sample_condition(num, given):
        numbers = np.atleast_1d(np.asarray(given.get(name, default), float))
        if numbers.ndim != 1 or not len(numbers) or not ((numbers >= 0) & (numbers <= 1)).all():
            raise InputError(f"{name} is a list of numbers from 0 to 1, not {numbers}")
        told = rest(-(-num // len(numbers)), {other: x for other, x in given.items() if other != name})
        (cond,) = told or ({},)
        cond = {other: np.repeat(x, len(numbers), axis=0)[:num] for other, x in cond.items()}
        return ({**cond, name: np.resize(numbers, num).astype(np.float32)},)

    return sample_condition


def in_turn(x: np.ndarray, num: int) -> np.ndarray:
    """[num, ...] rows of `x`, again and again; of one row no copies are made."""
    return np.broadcast_to(x, (num, *x.shape[1:])) if len(x) == 1 else np.take(x, np.arange(num) % len(x), axis=0)


def joined(**parts: SampleCondition) -> SampleCondition:
    """One `sample_condition` of several: one for each name, and `rest` for all other names."""

    def sample_condition(num, given):
        together = {}
        for name, one in parts.items():
            mine = {key: x for key, x in given.items() if (key not in parts if name == "rest" else key == name)}
            for cond in one(num, mine):
                together |= cond
        return (together,)

    return sample_condition


def _arrays(given):
    return ((name, np.asarray(x)) for name, x in given.items())


def _only(given, *names):
    for name in given:
        if name not in names:
            raise InputError(f"this model takes no condition {name!r}, only {', '.join(names)}")
