"""A published model in one call: its module, its parameters, and how it is sampled."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import write_json
from diffusion_jax.pretrained import entries
from diffusion_jax.pretrained.families import first_stages
from diffusion_jax.pretrained.families.added_keys import added_keys, has_added_keys
from diffusion_jax.pretrained.families.dit_config import dit
from diffusion_jax.pretrained.families.ncsnpp import has_skips, ncsnpp
from diffusion_jax.pretrained.families.prior import prior, text_projection
from diffusion_jax.pretrained.families.unet2d import unet2d
from diffusion_jax.pretrained.families.unet2d_condition import controlnet, unet2d_condition
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.published import Network
from diffusion_jax.pretrained.schedulers import scheduler
from diffusion_jax.pretrained.schedulers.scheduler import Sampling

# What is a network, its scheduler, and whether it is told a label, and nothing else; in one folder without others.
PIPELINES = {
    ("UNet2DModel", "DDPMScheduler", False): "DDPMPipeline",
    ("UNet2DModel", "DDIMScheduler", False): "DDIMPipeline",
    ("UNet2DModel", "ScoreSdeVeScheduler", False): "ScoreSdeVePipeline",
    ("UNet2DModel", "CMStochasticIterativeScheduler", False): "ConsistencyModelPipeline",
    ("UNet2DModel", "CMStochasticIterativeScheduler", True): "ConsistencyModelPipeline",
}


class Pretrained(NamedTuple):
    """A published model.

    Attributes:
      network: its module (`network.model`) and its table of names.
      params: its parameters.
      config: its config.json.
      scheduler: its scheduler_config.json, or None.
    """

    network: Network
    params: dict[str, Any]
    config: dict[str, Any]
    scheduler: dict[str, Any] | None

    def sampling(self) -> Sampling:
        """What its scheduler_config.json says (`scheduler.sampling`).

        Raises:
          InputError: it has none, or one that is not known.
        """
        if self.scheduler is None:
            raise InputError("no scheduler_config.json came with this model; take its parts from the package")
        return scheduler.sampling(self.scheduler)

    def save(self, path: str | Path) -> None:
        """Write a folder that `load`, `sample --pretrained` and diffusers read; errors as of `entries.write`.

        It holds config.json, the weights, scheduler_config.json where there is one, and for a network that with its
        scheduler is a whole pipeline of diffusers (`PIPELINES`) also model_index.json. Each file appears whole or not
        at all, what makes the folder a pipeline last.
        """
        entries.write(self.params, self.network.entries, path, self.config)
        if self.scheduler is None:
            return
        write_json(Path(path) / files.SCHEDULER, self.scheduler)
        kinds = [str(config.get("_class_name")) for config in (self.config, self.scheduler)]
        told = any(part is not None for part in self.network.example[2:])
        pipeline = PIPELINES.get((kinds[0], kinds[1], told))
        if pipeline is not None:
            parts = {name: ["diffusers", kind] for name, kind in zip(("unet", "scheduler"), kinds, strict=True)}
            write_json(Path(path) / "model_index.json", {"_class_name": pipeline, **parts})


def load(
    name: str | Path, variant: str = "", revision: str | None = None, dtype: DTypeLike | None = np.float32
) -> Pretrained:
    """A model in diffusers' layout: a folder, or "owner/name" on the hub (`files.component`).

    Known are UNet2DModel, UNet2DConditionModel, ControlNetModel and DiTTransformer2DModel, as far as they are
    networks of `models`; unCLIP's PriorTransformer and UnCLIPTextProjModel; and, in a folder of their own,
    autoencoders (`first_stages.opened` says how these encode).

    Args:
      name, variant, revision: as of `files.component`.
      dtype: of the parameters; None leaves each array in the file's own (`Network.read`).

    Raises:
      InputError: as of `files.component`, `entries.read` and `build`.
    """
    config, weights, scheduler_config = files.component(name, variant, revision)
    network = build(config, weights)
    return Pretrained(network, network.read(weights, dtype), config, scheduler_config)


def build(config: Mapping[str, Any], weights: Iterable[str] = ()) -> Network:
    """The network of a config.json; `weights` are the names of the file's arrays, where there is one.

    Raises:
      InputError: another class, or a value that is not implemented; both are named. Or weights of another network.
    """
    unet = ncsnpp if has_skips(config) else unet2d
    conditioned = added_keys if has_added_keys(config) else unet2d_condition
    kinds = {
        "UNet2DModel": lambda: unet(config, weights),
        "UNet2DConditionModel": lambda: conditioned(config),
        "ControlNetModel": lambda: controlnet(config),
        "DiTTransformer2DModel": lambda: dit(config),
        "Transformer2DModel": lambda: dit(config),
        "PriorTransformer": lambda: prior(config),
        "UnCLIPTextProjModel": lambda: text_projection(config),
        "AutoencoderKL": lambda: first_stages.kl(config, weights).network,
        "VQModel": lambda: first_stages.vq(config, weights).network,
        "AutoencoderTiny": lambda: first_stages.tiny(config).network,
    }
    name = str(config.get("_class_name"))
    if name not in kinds:
        raise InputError(f"a network of class {name[:100]!r} is not known; of use are {', '.join(kinds)}")
    network = kinds[name]()
    if weights:  # before anything as large as the config says is made
        entries.check_names(network.entries, weights)
    return network
