"""The weights of the FID's network (`models.judges.inception`), in the file that pytorch-fid made of TensorFlow's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.models.judges.inception import Inception
from diffusion_jax.pretrained import entries, layouts
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.formats import digest, files

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NORM = {
    "weight": "params/{}/bn/scale",
    "bias": "params/{}/bn/bias",
    "running_mean": "batch_stats/{}/bn/mean",
    "running_var": "batch_stats/{}/bn/var",
}
# Of the bias the Inception Score knows nothing; the other is a counter of training steps.
UNUSED = ("fc.bias", "num_batches_tracked")


def load(path: str | Path) -> dict[str, Any]:
    """The network's variables, {"params": ..., "batch_stats": ...}, from the published file.

    Args:
      path: of the file from `URL`.

    Raises:
      InputError: the file cannot be read, or is another one.
    """
    digest.check(path, SHA256, f"get it from {URL}, or give other weights as an extractor of your own")
    return read(files.weights(path))


def read(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of name -> array, with the names of torchvision's Inception v3 (`entries.read`)."""
    used = {name: array for name, array in weights.items() if not name.endswith(UNUSED)}
    variables = template()
    return entries.read(variables, table(variables), used)


def template() -> dict[str, Any]:
    """Shapes and dtypes of the network's variables."""
    example = jax.ShapeDtypeStruct((1, 75, 75, 3), np.float32)
    return jax.eval_shape(Inception().init, jax.random.key(0), example)


def table(variables: Mapping[str, Any]) -> list[Entry]:
    """Which of the published arrays is which variable: the modules have the same names."""
    found = [Entry("fc.weight", ("params/fc/kernel",), layouts.linear)]
    for path in _convolutions(variables["params"]):
        theirs = path.replace("/", ".")
        found.append(Entry(f"{theirs}.conv.weight", (f"params/{path}/conv/kernel",), layouts.conv))
        found += [Entry(f"{theirs}.bn.{name}", (ours.format(path),)) for name, ours in NORM.items()]
    return found


def _convolutions(params: Mapping[str, Any], above: str = ""):
    """Paths of the modules that hold a convolution."""
    for name, inner in params.items():
        if "conv" in inner:
            yield above + name
        elif "kernel" not in inner:
            yield from _convolutions(inner, f"{above}{name}/")
