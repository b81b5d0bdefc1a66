"""First stages that are trained: what encodes images, and decodes latents (Rombach et al. 2022)."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding import latents
from diffusion_jax.autoencoding.latents import Halves, Scaling
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Clean, SampleFn, Tree
from diffusion_jax.data import images
from diffusion_jax.methods import runs
from diffusion_jax.methods.autoencoders.compose import Autoencoding
from diffusion_jax.pretrained import first_stages
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


def opened(path: str, flag: str, variant: str = "", scale: float | None = None) -> Opened:
    """The first stage that `path` names: a trained run's, or a published one.

    Args:
      path: a work directory, of which the newest averaged parameters count; or what
        `pretrained.first_stages.opened` takes, for images in [-1, 1].
      flag: the option that names it, such as --first-stage, for messages.
      variant: of a published one's weights, such as "fp16".
      scale: of a published one's latents, where its file does not say it.

    Raises:
      InputError: there is none, the run is of something else, or a run is given what is for published ones.
    """
    if not path or _is_workdir(Path(path)):
        if variant or scale is not None:
            raise InputError(f"variant and scale are of published first stages, and {path} is a run; leave them out")
        return _of_run(path, flag)
    try:
        stage = first_stages.opened(path, variant, scale=scale)
    except InputError as error:
        raise InputError(f"there is no run in {path} ({flag}), and as a published first stage: {error}") from error
    about = f"the first stage {path}" + (f", {variant}" if variant else "")
    return Opened(stage.halves, stage.read, lambda batch: images.to_float(batch["image"]), stage.scaling, about)


def _is_workdir(path: Path) -> bool:
    """Both kinds have a config.json."""
    return (path / "checkpoints").is_dir() or (
        (path / "config.json").is_file() and "config_file" in files.json_object(path / "config.json")
    )


def _of_run(path: str, flag: str) -> Opened:
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
    given = _by(shape)
    try:
        z = latents.latent_shape(stage.halves, params, shape)
        back = jax.eval_shape(stage.halves.decode, params, jax.ShapeDtypeStruct((1, *z), jnp.float32))
    except InputError as error:
        raise InputError(f"{stage.about} takes no images of {given}: {error}") from error
    except (flax.errors.FlaxError, TypeError, ValueError) as error:  # shapes that do not fit its kernels
        reason = (str(error).splitlines() or ["?"])[0][:160]
        raise InputError(
            f"{stage.about} takes no images of {given} ({reason}); give those it was made for"
        ) from error
    if back.shape[1:] != tuple(shape) or len(z) != 3:
        raise InputError(
            f"{stage.about} makes {_by(back.shape[1:])} of images of {given} and latents of {_by(z)}; "
            "give images of the shape that it was made for"
        )
    return z


def moments(stage: Opened, clean: Clean, mirrored: bool) -> SampleFn:
    """`(params, batch) -> float32 [B, 1 or 2, 2, h, w, c]`: mean and std of q(z | x) of images, and of their mirrors.

    Args:
      stage: the first stage.
      clean: makes x [B, H, W, C] of a batch.
      mirrored: whether mirror images are encoded too.
    """

    def encode(params, batch):
        x = clean(batch)
        views = jnp.stack([x, x[:, :, ::-1]], 1) if mirrored else x[:, None]
        q = stage.halves.encode(params, views.reshape(-1, *x.shape[1:]))
        found = jnp.stack([q.mean, jnp.broadcast_to(q.std, q.mean.shape)], 1).astype(jnp.float32)
        return found.reshape(*views.shape[:2], *found.shape[1:])

    return encode


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
