"""The weights of LPIPS (`models.judges.lpips`): torchvision's of the trunk, and the heads of the package lpips.

Neither comes with this package. Of VGG16: https://download.pytorch.org/models/vgg16-397923af.pth, 528 MB, of which
the convolutions are 59, and weights/v0.1/vgg.pth of https://github.com/richzhang/PerceptualSimilarity. Of AlexNet:
alexnet-owt-7be5be79.pth and alex.pth, from the same places.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.judges.lpips import Lpips, Trunk
from diffusion_jax.pretrained import entries, layouts
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.formats import files

UNUSED = "classifier."  # what torchvision's networks end with


def load(network: str | Path, heads: str | Path, trunk: Trunk) -> dict[str, Any]:
    """The parameters of `Lpips(trunk)`, from files of torch.save or safetensors.

    Args:
      network: torchvision's weights of the trunk, `features.0.weight` and so on.
      heads: the weights of the package lpips, version 0.1, `lin0.model.1.weight` and so on.
      trunk: `lpips.vgg16()` or `lpips.alexnet()`.

    Raises:
      InputError: a file cannot be read, or they are not those weights.
    """
    weights = {**files.weights(network), **files.weights(heads)}
    try:
        return read({name: array for name, array in weights.items() if not name.startswith(UNUSED)}, trunk)
    except InputError as error:
        raise InputError(
            f"{network} and {heads} are not weights of this LPIPS ({error}); "
            "give torchvision's of its trunk, and those that the package lpips has for it"
        ) from error


def read(weights: Mapping[str, Any], trunk: Trunk) -> dict[str, Any]:
    """Parameters of name -> array, with the names of both files (`entries.read`)."""
    params = template(trunk)
    return entries.read(params, table(params), weights)


def template(trunk: Trunk) -> dict[str, Any]:
    """Shapes and dtypes of the parameters."""
    example = jax.ShapeDtypeStruct((1, trunk.least, trunk.least, 3), np.float32)
    return jax.eval_shape(Lpips(trunk).init, jax.random.key(0), example, example)["params"]


def table(params: Mapping[str, Any]) -> list[Entry]:
    """Which of the published arrays is which parameter: convolutions have the same places."""
    found = []
    for place in params["trunk"]:
        found.append(Entry(f"features.{place}.weight", (f"trunk/{place}/kernel",), layouts.conv))
        found.append(Entry(f"features.{place}.bias", (f"trunk/{place}/bias",)))
    heads = [name for name in params if name != "trunk"]
    return found + [Entry(f"{name}.model.1.weight", (name,), layouts.pointwise) for name in heads]
