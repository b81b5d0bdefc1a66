"""Published first stages in one call: what latent diffusion models are trained on and draw.

stage = first_stages.opened("stabilityai/sd-vae-ft-mse")
params = stage.read()
z = stage.scaling.scaled(stage.halves.encode(params, x).mean)  # x [B, H, W, C] in [-1, 1]
x = stage.halves.decode(params, stage.scaling.unscaled(z))
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from numpy.typing import DTypeLike

from diffusion_jax.autoencoding.latents import Halves, Scaling
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.core.protocols import Hold, Tree
from diffusion_jax.pretrained import entries
from diffusion_jax.pretrained.families import first_stage_files, first_stages
from diffusion_jax.pretrained.families.first_stages import Described
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.published import Network

FOLDERS = ("vae", "vqvae", "vq_model", "")  # of a pipeline, where its first stage may be
SINGLE = (".safetensors", *files.TORCH)


class FirstStage(NamedTuple):
    """A published first stage.

    Attributes:
      network: its module, and the table of its weights.
      halves: how it encodes and decodes.
      scaling: its latents as diffusion models take them.
      config: its config.json, or the one that was derived of a file without.
      read: `() -> params`: the module's, and of a VQModel beside them "codebook" [K, d].
    """

    network: Network
    halves: Halves
    scaling: Scaling
    config: dict[str, Any]
    read: Hold

    def save(self, params: Tree, path: str | Path) -> None:
        """Write parameters as a folder that `opened` and diffusers read; errors as of `entries.write`.

        The arrays have the names of diffusers today, whichever those that were read had.
        """
        config = {"scaling_factor": float(jnp.asarray(self.scaling.scale))} if self._unsaid() else {}
        entries.write(params, described(self.config).network.entries, path, self.config | config)

    def _unsaid(self) -> bool:
        """Whether diffusers would take another scale: its VQModel has that of another model by default."""
        return self.config.get("_class_name") == "VQModel" and "scaling_factor" not in self.config


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
      variant: of the weights, such as "fp16"; the parameters are float32.
      revision: of the hub's repository.
      scale: by what latents are multiplied, in place of what the files say.
      dtype: of what the network computes, float32 or bfloat16: decoders overflow float16.

    Raises:
      InputError: as of `files.component` and `described`; a file that does not say the scale of latents that are
        drawn, without `scale`; or another dtype.
    """
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)):
        raise InputError(f"a first stage computes in float32 or bfloat16, not {jnp.dtype(dtype)}: others overflow")
    if scale is not None and not 0 < scale < float("inf"):
        raise InputError(f"latents scaled by {scale}; give a number above 0")
    if Path(name).is_file():
        config, weights = _in_file(Path(name), scale)
    else:
        config, weights, _ = files.component(name, variant, revision, FOLDERS)
    network, halves, scaling = described(config, weights)
    entries.check_names(network.entries, weights)
    network = network._replace(model=network.model.clone(dtype=jnp.dtype(dtype).type))
    if scale is not None:
        scaling, config = scaling._replace(scale=scale), _scaled(config, scale)
    return FirstStage(network, halves(network.model), scaling, config, lambda: network.read(weights))


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


def _scaled(config: Mapping[str, Any], scale: float) -> dict[str, Any]:
    if config.get("latents_std") is not None:
        raise InputError("each channel of these latents has a scale of its own, latents_std; leave scale out")
    return {**config, "scaling_factor": scale}


def _in_file(path: Path, scale: float | None) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The config and the arrays of one file."""
    if path.suffix not in SINGLE:
        raise InputError(f"{path}: a first stage is a folder, or a file named {', '.join(SINGLE)}")
    held = _arrays(path)
    weights = first_stage_files.own(held)
    beside = path.parent / "config.json"
    config = json_object(beside) if beside.is_file() else {}
    if config.get("_class_name") in ("AutoencoderKL", "VQModel", "AutoencoderTiny"):
        return config, weights
    config = first_stage_files.config_in(weights, str(path))
    found = first_stage_files.scale_in(held)
    if found is not None:
        config["scaling_factor"] = found
    elif config["_class_name"] == "AutoencoderKL" and scale is None:
        raise InputError(
            f"{path} does not say by what its latents are scaled; give scale, 0.18215 for Stable Diffusion 1 and 2, "
            "0.13025 for XL; or the folder of diffusers, whose config.json says it"
        )
    return config, weights


def _arrays(path: Path) -> dict:
    """Those of a checkpoint are under "state_dict", unless it has nothing else."""
    if path.suffix == ".safetensors":
        return files.weights(path)
    try:
        return files.weights(path)
    except InputError:
        return files.weights(path, "state_dict")
