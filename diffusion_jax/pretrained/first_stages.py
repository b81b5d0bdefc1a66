"""Published first stages in one call: what latent diffusion models are trained on and draw.

stage = first_stages.opened("stabilityai/sd-vae-ft-mse")
params = stage.read()
z = stage.scaling.scaled(stage.halves.encode(params, x).mean)  # x [B, H, W, C] in [-1, 1]
x = stage.halves.decode(params, stage.scaling.unscaled(z))
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.autoencoding.latents import Halves, Scaling
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.core.protocols import ReadWeights, Tree
from diffusion_jax.models.autoencoders.convolutional import ConvolutionalAutoencoder
from diffusion_jax.models.autoencoders.tiled import tiled
from diffusion_jax.pretrained import entries
from diffusion_jax.pretrained.families import first_stage_files, first_stages
from diffusion_jax.pretrained.families.first_stages import Described
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.formats.files import Component
from diffusion_jax.pretrained.published import Network

FOLDERS = ("vae", "vqvae", "vq_model", "")  # of a pipeline, where its first stage may be
CLASSES = ("AutoencoderKL", "VQModel", "AutoencoderTiny")
SCALE = "scaling_factor"
SINGLE = (".safetensors", *files.TORCH)
SCALES = "give scale, 0.18215 for Stable Diffusion 1 and 2, 0.13025 for XL; or a folder, whose config.json says it"


class FirstStage(NamedTuple):
    """A published first stage.

    Attributes:
      network: its module, and the table of its weights.
      halves: how it encodes and decodes.
      scaling: its latents as diffusion models take them; None where a file does not say it.
      config: its config.json, or the one that was derived of a file without.
      read: `(dtype=float32) -> params`: the module's, and of a VQModel beside them "codebook" [K, d]; None leaves
        each array in the file's own dtype.
    """

    network: Network
    halves: Halves
    scaling: Scaling | None
    config: dict[str, Any]
    read: ReadWeights

    def save(self, params: Tree, path: str | Path) -> None:
        """Write parameters as a folder that `opened` and diffusers read; errors as of `entries.write`.

        The arrays have the names of diffusers today, whichever those that were read had. The config says the scale,
        for diffusers' classes have one of some model by default.

        Raises:
          InputError: the scale is not known.
        """
        if self.scaling is None:
            raise InputError(f"the scale of these latents is not known; {SCALES}")
        again = described(self.config)
        scale = {} if np.ndim(again.scaling.scale) else {SCALE: again.scaling.scale}
        entries.write(params, again.network.entries, path, scale | self.config)

    def on_tiles(self, side: int) -> "FirstStage":
        """The same, whose decoder works on tiles of `side` pixels: in less memory and more time (`tiled`).

        Raises:
          InputError: as of `tiled`, or it is an AutoencoderTiny.
        """
        model = self.network.model
        if not isinstance(model, ConvolutionalAutoencoder):
            raise InputError("an AutoencoderTiny decodes whole pictures, in little memory; leave tiles out")
        return self._replace(halves=described(self.config).halves(model, tiled(model, side)))


def opened(
    name: str | Path,
    variant: str = "",
    revision: str | None = None,
    scale: float | None = None,
    dtype: DTypeLike = jnp.float32,
) -> FirstStage:
    """A first stage, published by diffusers or latent diffusion; only its config is read, until `read`.

    Args:
      name: a folder of diffusers, of the model or of a pipeline that has it in one of `FOLDERS`; "owner/name" on the
        hub; or one file (.ckpt, .pt, .safetensors), of the first stage or of a whole model. A file's config is the
        config.json beside it, where that is of a first stage; else it is derived of its arrays.
      variant: of the weights, such as "fp16".
      revision: of the hub's repository.
      scale: by what latents are multiplied, in place of what the files say.
      dtype: of what the network computes, float32 or bfloat16: decoders overflow float16.

    Raises:
      InputError: as of `files.component` and `described`; or another dtype.
    """
    _check_dtype(dtype)
    if scale is not None and not 0 < scale < float("inf"):
        raise InputError(f"latents scaled by {scale}; give a number above 0")
    if Path(name).is_file():
        found, said = _in_file(Path(name))
    else:
        found, said = files.component(name, variant, revision, FOLDERS), True
    if scale is not None and found.config.get("latents_std") is not None:
        raise InputError("each channel of these latents has a scale of its own, latents_std; leave scale out")
    config = found.config if scale is None else {**found.config, SCALE: scale}
    stage = _of(config, found.weights, dtype)
    return stage if said or scale is not None else stage._replace(scaling=None)


def beside(name: str | Path, variant: str = "", dtype: DTypeLike = jnp.float32) -> FirstStage | None:
    """The first stage beside the network of a pipeline; None where it has none.

    Args:
      name: the pipeline's folder, the network's own folder in it, or a name on the hub.
      variant: of the weights, where they have it: pipelines have variants of their network alone.
      dtype: as of `opened`.

    Raises:
      InputError: as of `opened`.
    """
    root, inside = Path(name), FOLDERS[:-1]
    if (root / "config.json").is_file() and (root.absolute().parent / "model_index.json").is_file():
        root = root.absolute().parent
    try:
        found = files.component_if(root if root.exists() else name, variant, folders=inside)
    except InputError:
        if not variant:
            raise
        found = files.component_if(root if root.exists() else name, folders=inside)
    return None if found is None else _of(found.config, found.weights, dtype)


def _of(config: dict[str, Any], weights: Mapping[str, Any], dtype: DTypeLike = jnp.float32) -> FirstStage:
    _check_dtype(dtype)
    network, halves, scaling = described(config, weights)
    entries.check_names(network.entries, weights)
    network = network._replace(model=network.model.clone(dtype=jnp.dtype(dtype).type))
    return FirstStage(network, halves(network.model), scaling, config, partial(network.read, weights))


def _check_dtype(dtype: DTypeLike) -> None:
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)):
        raise InputError(f"a first stage computes in float32 or bfloat16, not {jnp.dtype(dtype)}: others overflow")


def described(config: Mapping[str, Any], weights: Mapping[str, Any] | None = None) -> Described:
    """A first stage of diffusers by its config.json; `weights` are the arrays of its file, where there is one.

    Raises:
      InputError: another class, or a value that is not implemented; both are named.
    """
    weights = weights or {}
    kinds = {
        "AutoencoderKL": lambda: first_stages.kl(config, weights),
        "VQModel": lambda: first_stages.vq(config, weights),
        "AutoencoderTiny": lambda: first_stages.tiny(config),
    }
    name = str(config.get("_class_name"))
    if name not in kinds:
        raise InputError(f"a first stage of class {name[:100]!r} is not known; of use are {', '.join(kinds)}")
    return kinds[name]()


def _in_file(path: Path) -> tuple[Component, bool]:
    """The config and the arrays of one file, and whether they say how latents are scaled."""
    if path.suffix not in SINGLE:
        raise InputError(f"{path}: a first stage is a folder, or a file named {', '.join(SINGLE)}")
    held = _arrays(path)
    weights, beside = first_stage_files.own(held), path.parent / "config.json"
    config = json_object(beside) if beside.is_file() else {}
    if config.get("_class_name") in CLASSES:
        return Component(config, weights, None), True
    derived, scale = first_stage_files.config_in(weights, str(path)), first_stage_files.scale_in(held)
    if scale is not None:
        return Component({**derived, SCALE: scale}, weights, None), True
    return Component(derived, weights, None), derived["_class_name"] == "VQModel"  # whose are not scaled


def _arrays(path: Path) -> dict:
    """Those of a checkpoint are under "state_dict", unless it has nothing else."""
    if path.suffix == ".safetensors":
        return files.weights(path)
    try:
        return files.weights(path)
    except InputError:
        return files.weights(path, "state_dict")
