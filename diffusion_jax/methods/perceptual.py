"""LPIPS as a distance that training asks for (Zhang et al. 2018), by weights that lie in files."""

import hashlib
import re
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Distance, Hold, OfImages
from diffusion_jax.diffusion.few_step import distances
from diffusion_jax.models.judges.lpips import Lpips, Trunk, enlarged, vgg16
from diffusion_jax.pretrained.families import lpips as published
from diffusion_jax.training.experiment import Data

NAME = "lpips"  # of its parameters among those that are held
VGG16 = vgg16()
PART = 2**20  # bytes that are read at a time


def as_it_is(x: jax.Array) -> jax.Array:
    """x itself."""
    return x


def with_lpips(config: Config) -> Config:
    """`config` with the two files that LPIPS is read from when a run begins, and never after."""
    config.lpips = Config(
        network=values.text("", "file of VGG16's weights, vgg16-397923af.pth: the loss compares by LPIPS"),
        heads=values.text("", "file of LPIPS' own weights, vgg.pth; together with network, or neither"),
    )
    return config


def named(
    config: Config, data: Data, trunk: Trunk = VGG16, shown: OfImages = enlarged
) -> tuple[Distance, Hold] | None:
    """LPIPS, and the arrays that it looks at, where the config names its files; None where it names none.

    Args:
      config: with `with_lpips`.
      data: images [H, W, C] in [-1, 1], C 3 or 1. Grey ones are compared as colours.
      trunk: that the files are of.
      shown: how both images are shown to it; by default as consistency models' code does.

    Raises:
      InputError: one file without the other, or data that are no such images; the second result, where a file
        cannot be read, has other weights, or another content than its name says.
    """
    network, heads = config.lpips.network, config.lpips.heads
    if not (network or heads):
        return None
    if not (network and heads):
        given, missing = ("network", "heads") if network else ("heads", "network")
        raise InputError(f"LPIPS is read from two files; beside --config.lpips.{given} give --config.lpips.{missing}")
    match data.shape:
        case (_, _, 1 | 3):
            judge = Lpips(trunk)
        case shape:
            raise InputError(f"LPIPS compares images of 1 or 3 channels, not {shape}; leave --config.lpips.* out")

    def compare(params, x, y):
        return judge.apply({"params": params}, shown(x), shown(y))

    return distances.held(compare, NAME), lambda: {NAME: load(network, heads, trunk)}


def either(
    config: Config, data: Data, otherwise: Distance = distances.l2, trunk: Trunk = VGG16
) -> tuple[Distance, Hold]:
    """`named`, or where no files are named the distance `otherwise`, which looks at nothing that is held.

    To be given to `consistency.distilled` and `consistency.trained`, as `distance` and `held`.
    """
    return named(config, data, trunk) or (otherwise, dict)


def load(network: str, heads: str, trunk: Trunk) -> dict:
    """The parameters of `Lpips(trunk)`, of files that are what they are called (`published.load`).

    A name of torchvision's ends with the first digits of its content's SHA-256, vgg16-397923af.pth. The heads are no
    less than 0: with another a distance could be negative.

    Raises:
      InputError: they are not.
    """
    for path in (network, heads):
        _check_name(path)
    params = published.load(network, heads, trunk)
    for name, head in params.items():
        if name != "trunk" and not (np.asarray(head) >= 0).all():
            raise InputError(f"{heads} has a negative weight in {name}; give those that the package lpips has")
    return params


def _check_name(path: str):
    says = re.search(r"-([0-9a-f]{8,64})\.pth$", Path(path).name)
    if says is None:
        return
    with files.reading(path) as file:
        digest = hashlib.sha256()
        while part := file.read(PART):
            digest.update(part)
    found = digest.hexdigest()
    if not found.startswith(says[1]):
        raise InputError(
            f"{path} is damaged or another file: its SHA-256 begins with {found[: len(says[1])]}, "
            f"not with {says[1]} as its name says; copy it again"
        )
