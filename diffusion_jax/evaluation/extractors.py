"""What looks at images: the network of the FID, a small judge of digits, or a function of the user's own."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffusion_jax.core import user_files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Features
from diffusion_jax.data import images
from diffusion_jax.models.judges.inception import Inception, resized
from diffusion_jax.pretrained.families import inception as published
from diffusion_jax.pretrained.formats import digest, safetensors_file

FEATURES = "features"  # what every extractor gives
SPATIAL = "spatial"

DIGITS = Path(__file__).with_name("digits.safetensors")
DIGITS_SHA256 = "1508413184c6b4c489ad8cfd7251546740b6436540a1584a703939998cf2cea6"


class Extractor(NamedTuple):
    """A function of images; a project's own is `Extractor(lambda images: {"features": ...}, "mine")`.

    Attributes:
      features: uint8 [B, H, W, C] -> dictionary of float arrays [B, D], in JAX. It has "features", for most metrics;
        it may have "logits" (for the Inception Score) and "spatial" (for the sFID). As a `jax.tree_util.Partial`
        it keeps its arguments, such as weights, out of the compiled program.
      name: of the network, for messages and reports: figures of different ones cannot be compared.
      sha256: of the file of its weights, where it has one.
      shape: height, width and channels of the images; None where any will do.
    """

    features: Features
    name: str
    sha256: str = ""
    shape: tuple[int | None, int | None, int | None] = (None, None, None)


def inception(path: str | Path) -> Extractor:
    """The network of the FID, which looks at colour images of any size.

    "features" are pool_3 [B, 2048] (FID, KID, precision and recall). "logits" [B, 1008] are without the bias, as in
    the papers' code (Inception Score). "spatial" [B, 2023] are the first 7 channels of mixed_6, 17 x 17 pixels of
    them (sFID: Nash et al. 2021, by the layer that Dhariwal & Nichol 2021 evaluate).

    Images are resized as by the original code of the FID (`models.judges.inception.resized`). Ports that put pixels
    at half-integers, pytorch-fid among them, give somewhat other figures.

    Args:
      path: the file that `pretrained.families.inception.URL` points to, 96 MB. It does not come with this package.

    Raises:
      InputError: no such file, or another one (its SHA-256 is checked).
    """
    return Extractor(
        Partial(_inception, published.load(path)), "Inception 2015-12-05", published.SHA256, (None, None, 3)
    )


def digits() -> Extractor:
    """A classifier of scikit-learn's digits, uint8 [B, 8, 8, 1]: it comes with the package.

    scikit-learn's MLPClassifier((128, 64)), trained on the 1200 train digits (experiments/train_digits_judge.py) and
    right on 98.8 % of the test digits. "features" is its last hidden layer [B, 64], "logits" are [B, 10]. Maps it has
    none: "spatial" is its first hidden layer [B, 128], whose units look at single places.

    Raises:
      InputError: the file in the package is damaged.
    """
    digest.check(DIGITS, DIGITS_SHA256, "install the package again")
    params = {name: np.asarray(array) for name, array in safetensors_file.load(DIGITS).items()}
    return Extractor(Partial(_digits, params), "digits classifier", DIGITS_SHA256, (8, 8, 1))


def dimensions(extractor: Extractor) -> dict[str, int]:
    """Name -> D of what the extractor says; nothing is computed."""
    shape = tuple(known or usual for known, usual in zip(extractor.shape, (64, 64, 3), strict=True))
    features = jax.eval_shape(extractor.features, jax.ShapeDtypeStruct((1, *shape), np.uint8))
    return {name: array.shape[-1] for name, array in features.items()}


def named(name: str | None) -> Extractor:
    """The extractor that a person names: "digits", the file of Inception's weights, or a Python file of their own.

    Raises:
      InputError: no name, no such file, or one without a function `extractor()`.
    """
    if not name:
        raise InputError("no extractor; give digits, the file of Inception's weights, or a Python file that has one")
    if name == "digits":
        return digits()
    if not name.endswith(".py"):
        return inception(name)
    remedy = "it is a Python file whose extractor() returns an evaluation.extractors.Extractor"
    module = user_files.load(name, "extractor", "extractor", remedy=remedy)
    found = module.extractor()
    return found._replace(sha256=found.sha256 or hashlib.sha256(Path(name).read_bytes()).hexdigest())


def _inception(variables, x: jax.Array):
    # As the graph of 2015 has it: 255 does not become 1.
    return Inception().apply(variables, (resized(x, 299) - 128) / 128)


def _digits(params, x: jax.Array) -> dict[str, jax.Array]:
    def dense(h, i):
        return jnp.dot(h, params[f"{i}.kernel"], precision=jax.lax.Precision.HIGHEST) + params[f"{i}.bias"]

    first = jax.nn.relu(dense(images.to_float(x).reshape(len(x), -1), 0))
    last = jax.nn.relu(dense(first, 1))
    return {FEATURES: last, "logits": dense(last, 2), "spatial": first}
