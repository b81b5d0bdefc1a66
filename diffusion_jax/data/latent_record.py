"""The record of a folder of latents: of what they are, and their statistics."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.autoencoding.latents import Scaling, Statistics
from diffusion_jax.config.values import MOST, REFUSALS, Real, Text, Truth, Whole
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError

RECORD = "latents.json"
FORMAT = 1
NUMBER, POSITIVE = Real(-1e30, 1e30), Real(1e-30, 1e30)


class Cache(NamedTuple):
    """What a folder of latents holds.

    Attributes:
      first_stage: SHA-256 of the parameters that encoded.
      images: SHA-256 of some of the images, as the encoder takes them, and their labels (`known_by`).
      num: how many images.
      part: how many a file has; the last may have fewer.
      image: shape of an image, [H, W, C].
      shape: of a latent, [h, w, c].
      mirrored: whether there are those of the mirror images.
      labelled: whether there are labels.
      scaling: that the first stage comes with; None where it has none.
      about: the first stage, for a person.
      statistics: of draws of them, as the encoder has them; None until they are complete.
    """

    first_stage: str
    images: str
    num: int
    part: int
    image: tuple[int, ...]
    shape: tuple[int, ...]
    mirrored: bool
    labelled: bool
    scaling: Scaling | None
    about: str
    statistics: Statistics | None = None

    @property
    def parts(self) -> int:
        """How many files there are."""
        return math.ceil(self.num / self.part)

    @property
    def moments(self) -> tuple[int, ...]:
        """The shape of what is kept of an image: [1 or 2, 2, h, w, c]."""
        return (1 + self.mirrored, 2, *self.shape)

    @property
    def nbytes(self) -> int:
        """Of all that is kept, about."""
        return self.num * (2 * math.prod(self.moments) + 12)

    def indices(self, number: int) -> range:
        """The images of a part."""
        return range(number * self.part, min(self.num, (number + 1) * self.part))


def write(path: Path, cache: Cache) -> None:
    """Write the record of the folder `path`."""
    files.write_json(path / RECORD, as_json(cache))


def read(path: Path) -> Cache | None:
    """What the record of a folder says, complete or not; None where there is none."""
    file = path / RECORD
    if not file.is_file():
        return None
    found = files.json_object(file)
    try:
        if found.get("format") != FORMAT:
            raise ValueError(f"it is of the format {str(found.get('format'))[:20]}, and {FORMAT} is known")
        return Cache(
            first_stage=Text().take(found["first_stage"]),
            images=Text().take(found["images"]),
            num=Whole(1, MOST).take(found["num"]),
            part=Whole(1, 2**20).take(found["part"]),
            image=_shape(found["image"]),
            shape=(shape := _shape(found["shape"])),
            mirrored=Truth().take(found["mirrored"]),
            labelled=Truth().take(found["labelled"]),
            scaling=_scaling(found["scaling"], shape[-1]),
            about=Text().take(found["about"]),
            statistics=_statistics(found["statistics"], shape[-1]),
        )
    except (*REFUSALS, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"[:120]
        remedy = "remove the folder and run prepare again"
        raise InputError(f"{file} is no record of latents ({reason}); {remedy}") from error


def as_json(cache: Cache) -> dict[str, Any]:
    """A record as JSON says it."""
    scaling, statistics = cache.scaling, cache.statistics
    content = cache._asdict() | {
        "format": FORMAT,
        "image": list(cache.image),
        "shape": list(cache.shape),
        "scaling": scaling and {name: _plain(x, np.float32) for name, x in scaling._asdict().items()},
        "statistics": statistics and {name: _plain(x, np.float64) for name, x in statistics._asdict().items()},
    }
    return json.loads(json.dumps(content))


def _plain(x: Any, dtype: type) -> float | list[float]:
    return np.asarray(x, dtype).tolist() if np.ndim(x) else float(x)


def _shape(found: Any) -> tuple[int, ...]:
    height, width, channels = found
    return tuple(Whole(1, 2**16).take(side) for side in (height, width, channels))


def _numbers(found: Any, kind: Real, count: int) -> list[float]:
    if not isinstance(found, list) or len(found) != count:
        raise TypeError(f"no list of {count} numbers")
    return [kind.take(x) for x in found]


def _scaling(found: Any, channels: int) -> Scaling | None:
    if found is None:
        return None
    taken = {
        name: np.array(_numbers(found[name], kind, channels), np.float32)
        if isinstance(found[name], list)
        else kind.take(found[name])
        for name, kind in (("scale", POSITIVE), ("shift", NUMBER))
    }
    return Scaling(**taken)


def _statistics(found: Any, channels: int) -> Statistics | None:
    if found is None:
        return None
    return Statistics(
        NUMBER.take(found["mean"]),
        POSITIVE.take(found["std"]),
        *(np.array(_numbers(found[name], NUMBER, channels)) for name in ("channel_mean", "channel_std")),
    )
