"""First stages that are trained: what encodes images, and decodes latents (Rombach et al. 2022)."""

from collections.abc import Callable
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding.latents import Halves, Scaling
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Clean, Tree
from diffusion_jax.methods import runs
from diffusion_jax.methods.autoencoders.compose import Autoencoding
from diffusion_jax.training import held


class Opened(NamedTuple):
    """A first stage, of which nothing large is read yet.

    Attributes:
      halves: its encoder and its decoder.
      read: `() -> params`, NumPy arrays, as both halves take them. Reads files.
      clean: `{"image": uint8 [B, H, W, C]} -> x [B, H, W, C]`, as the encoder takes it.
      scaling: of its latents, where it comes with one; None otherwise.
      about: which it is, for a person.
    """

    halves: Halves
    read: Callable[[], Tree]
    clean: Clean
    scaling: Scaling | None
    about: str


def opened(path: str, flag: str) -> Opened:
    """The first stage in `path`: the work directory of a run of which the newest averaged parameters count.

    Args:
      path: where it is.
      flag: the option that names it, such as --first-stage, for messages.

    Raises:
      InputError: there is none, or the run is of something else.
    """
    run = runs.opened(path, flag, "first stage")
    method = run.experiment.method
    if not isinstance(method, Autoencoding) or method.halves is None:
        raise InputError(
            f"the run in {path} ({flag}) is no first stage: its codes are not a grid of numbers that it decodes; "
            "train one with configs/first_stage_digits.py, say"
        )
    return Opened(method.halves, run.read, method.data.clean, None, f"the run in {path}")


def digest(params: Tree) -> str:
    """SHA-256 of parameters: of names, types, shapes and contents (`training.held`)."""
    return held.digest({"": params}) or ""


def latent_shape(stage: Opened, params: Tree, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape [h, w, c] of the latents of images of `shape` [H, W, C]; nothing is computed.

    Args:
      stage: the first stage.
      params: its parameters, or their shapes.
      shape: of an image.

    Raises:
      InputError: its encoder takes no such images, or its decoder makes others.
    """
    images = _by(shape)
    try:
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        z = jax.eval_shape(lambda params, x: stage.halves.encode(params, x).mean, params, x)
        back = jax.eval_shape(stage.halves.decode, params, z)
    except InputError as error:
        raise InputError(f"{stage.about} takes no images of {images}: {error}") from error
    except (flax.errors.FlaxError, TypeError, ValueError) as error:  # shapes that do not fit its kernels
        reason = (str(error).splitlines() or ["?"])[0][:160]
        raise InputError(
            f"{stage.about} takes no images of {images} ({reason}); give those it was made for"
        ) from error
    if back.shape[1:] != tuple(shape) or z.ndim != 4:
        raise InputError(
            f"{stage.about} makes {_by(back.shape[1:])} of images of {images} and latents of {_by(z.shape[1:])}; "
            "give images of the shape that it was made for"
        )
    return z.shape[1:]


def check_range(stage: Opened, clean: Clean, batch: dict[str, np.ndarray]):
    """`InputError` unless `clean`, of a config's data, makes of a batch of images what the first stage takes."""
    ours, theirs = (np.asarray(of(batch)) for of in (clean, stage.clean))
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-5):
        raise InputError(
            f"{stage.about} takes images in [{theirs.min():.3g}, {theirs.max():.3g}], where the config's data are in "
            f"[{ours.min():.3g}, {ours.max():.3g}]; give a config whose data are as the first stage's"
        )


def _by(shape) -> str:
    return "x".join(map(str, shape))
