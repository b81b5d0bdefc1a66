"""How transformers' preprocessor_config.json prepares pictures for CLIP, as a function of ours."""

from collections.abc import Mapping
from typing import Any

import jax

from diffusion_jax.core.protocols import OfImages
from diffusion_jax.models.encoders import images
from diffusion_jax.pretrained.published import SIDE, Values

CONFIG: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": images.MEAN,
    "image_std": images.STD,
    "do_convert_rgb": True,  # pictures of three channels are taken
}
BICUBIC = 3  # Pillow's number
FILE = "preprocessor_config.json"


def of_side(side: int) -> dict[str, Any]:
    """The preprocessor_config.json of pictures of side x side pixels."""
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return {"image_processor_type": "CLIPImageProcessor", **CONFIG, **sizes}


def preparation(config: Mapping[str, Any]) -> OfImages:
    """`x [B, H, W, 3] in [-1, 1] -> [B, side, side, 3]`, what CLIP's encoder of pictures takes (`images`).

    Args:
      config: the preprocessor_config.json of CLIPImageProcessor or CLIPFeatureExtractor.

    Raises:
      InputError: a value that is not implemented; it is named.
    """
    values = Values(config, CONFIG, "CLIPImageProcessor")
    for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        values.only(name, True)
    values.only("do_convert_rgb", False, True, None)
    values.only("resample", BICUBIC)
    values.number("rescale_factor", 0.999 / 255, 1.001 / 255)
    size, crop = _side(values, "size", ("shortest_edge",)), _side(values, "crop_size", ("height", "width"))
    if crop > size:
        values.refuse("crop_size", values["crop_size"], f"at most size = {size} is expected")
    mean = values.numbers("image_mean", 3, 0, 1)
    std = values.numbers("image_std", 3, 1e-6, 1e6)

    def prepare(x: jax.Array) -> jax.Array:
        return images.normalised(images.middle(images.resized(x, size), crop), mean, std)

    return prepare


def _side(values: Values, name: str, keys: tuple[str, ...]) -> int:
    """A side, an integer or, in newer files, an object with such `keys`, all the same."""
    given = values[name]
    sides = list(given.values()) if type(given) is dict and set(given) == set(keys) else [given]
    if any(type(side) is not int or not 0 < side <= SIDE for side in sides) or len(set(sides)) > 1:
        values.refuse(name, given, f"an integer from 1 to {SIDE} is expected, or {' and '.join(keys)} of one length")
    return sides[0]
