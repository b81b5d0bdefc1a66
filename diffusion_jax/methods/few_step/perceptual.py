"""LPIPS as the distance of a consistency loss (Song et al. 2023), by weights that lie in files."""

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Distance, Hold
from diffusion_jax.diffusion.few_step import distances
from diffusion_jax.models.judges.lpips import Lpips, Trunk, enlarged, vgg16
from diffusion_jax.pretrained.families import lpips as published
from diffusion_jax.training.experiment import Data

NAME = "lpips"  # of its parameters among those that are held
VGG16 = vgg16()


def with_lpips(config: Config) -> Config:
    """`config` with the two files that LPIPS is read from when a run begins, and never after."""
    config.lpips = Config(
        network=values.text("", "file of VGG16's weights, vgg16-397923af.pth: the loss compares by LPIPS"),
        heads=values.text("", "file of LPIPS' own weights, vgg.pth; together with network, or neither"),
    )
    return config


def either(
    config: Config, data: Data, otherwise: Distance = distances.l2, trunk: Trunk = VGG16
) -> tuple[Distance, Hold]:
    """LPIPS where the config names its files, else another distance; and the arrays that it looks at.

    Images are compared as `models.judges.lpips.enlarged` shows them, grey ones as colours. To be given to
    `consistency.distilled` and `consistency.trained`, as `distance` and `held`.

    Args:
      config: with `with_lpips`.
      data: what the estimates are of: images [H, W, C] in [-1, 1], C 3 or 1.
      otherwise: the distance where no files are named.
      trunk: that the files are of.

    Raises:
      InputError: one file without the other, or data that are no such images; the second result, where a file
        cannot be read or has other weights.
    """
    network, heads = config.lpips.network, config.lpips.heads
    if not (network or heads):
        return otherwise, dict
    if not (network and heads):
        given, missing = ("network", "heads") if network else ("heads", "network")
        raise InputError(f"LPIPS is read from two files; beside --config.lpips.{given} give --config.lpips.{missing}")
    match data.shape:
        case (_, _, 1 | 3):
            judge = Lpips(trunk)
        case shape:
            raise InputError(f"LPIPS compares images of 1 or 3 channels, not {shape}; leave --config.lpips.* out")

    def compare(params, x, y):
        return judge.apply({"params": params}, enlarged(x), enlarged(y))

    return distances.held(compare, NAME), lambda: {NAME: published.load(network, heads, trunk)}
