"""A published model in one call: its module, its parameters, and how it is sampled."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from diffusion_jax.errors import InputError
from diffusion_jax.pretrained import diffusers_configs, entries, files, scheduler
from diffusion_jax.pretrained.dit_config import dit
from diffusion_jax.pretrained.published import Network
from diffusion_jax.pretrained.scheduler import Sampling


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

    def save(self, path) -> None:
        """Write a folder that `load` and diffusers read; errors as of `entries.write`."""
        entries.write(self.params, self.network.entries, path, self.config)


def load(name, variant: str = "", revision: str | None = None) -> Pretrained:
    """A model in diffusers' layout: a folder, or "owner/name" on the hub (`files.component`).

    Known are UNet2DModel, UNet2DConditionModel, ControlNetModel and DiTTransformer2DModel, as far as they are
    networks of `models`.

    Raises:
      InputError: as of `files.component`, `entries.read` and `build`.
    """
    config, weights, scheduler_config = files.component(name, variant, revision)
    network = build(config, weights)
    return Pretrained(network, network.read(weights), config, scheduler_config)


def build(config: Mapping[str, Any], weights=()) -> Network:
    """The network of a config.json; `weights` are the names of the file's arrays, where there is one.

    Raises:
      InputError: another class, or a value that is not implemented; both are named. Or weights of another network.
    """
    kinds = {
        "UNet2DModel": lambda: diffusers_configs.unet2d(config, weights),
        "UNet2DConditionModel": lambda: diffusers_configs.unet2d_condition(config),
        "ControlNetModel": lambda: diffusers_configs.controlnet(config),
        "DiTTransformer2DModel": lambda: dit(config),
        "Transformer2DModel": lambda: dit(config),
    }
    name = str(config.get("_class_name"))
    if name not in kinds:
        raise InputError(f"a network of class {name[:100]!r} is not known; of use are {', '.join(kinds)}")
    network = kinds[name]()
    if weights:  # before anything as large as the config says is made
        entries.check_names(network.entries, weights)
    return network
