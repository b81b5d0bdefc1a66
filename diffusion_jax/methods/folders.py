"""Published U-Nets to train on, or to learn from: a folder is opened and checked against the data.

Only configs are read here. The weights are when a run begins.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold, Tree
from diffusion_jax.methods import pixels
from diffusion_jax.pretrained import Pretrained, loading
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.published import Network
from diffusion_jax.pretrained.schedulers import scheduler
from diffusion_jax.pretrained.schedulers.scheduler import Sampling
from diffusion_jax.training.experiment import Data

# Their noise is no table of betas.
WITHOUT_TABLE = ("CMStochasticIterativeScheduler", "FlowMatchEulerDiscreteScheduler", "ScoreSdeVeScheduler")


class Opened(NamedTuple):
    """A published U-Net.

    Attributes:
      folder: where it is, or its name on the hub.
      network: its module, and the table of its weights.
      config: its config.json.
      scheduler: its scheduler_config.json.
      data: what it is shown, with labels where it is told them.
      read: `() -> params`.
    """

    folder: str
    network: Network
    config: dict[str, Any]
    scheduler: dict[str, Any]
    data: Data
    read: Hold

    def save(self, params: Tree, to: Path, scheduler: Mapping[str, Any]) -> None:
        """Write other parameters of the network as a folder with this scheduler_config.json (`Pretrained.save`)."""
        Pretrained(self.network, params, self.config, {**scheduler}).save(to)


def without_network(config: Config) -> Config:
    """`config` without the values of a network, which the folder has."""
    del config.model
    return config


def with_start(config: Config) -> Config:
    """`config` with the folder that training starts from, in place of the values of a network."""
    config = without_network(config)
    config.start = Config(folder=values.text("", "published folder, or name on the hub, that training starts from"))
    return config


def opened(folder: str, data: Data, flag: str) -> Opened:
    """The UNet2DModel in `folder`, whose images are those of `data`.

    Args:
      folder: as diffusers lays it out, or a name on the hub (`files.component`).
      data: images of as many channels, with labels if the network is told them.
      flag: how the folder is given, for messages: "--config.start.folder".

    Raises:
      InputError: no folder is given, or it has no network or scheduler, one that is not known, or one that does not
        fit the data: of other channels, that says a variance, or is told more than a label.
    """
    if not folder:
        raise InputError(f"no model to start from; give its folder: {flag}=DIR")
    try:
        component = files.component(folder)
    except InputError as error:
        if Path(folder).exists():
            raise
        raise InputError(f"{error}; a run needs the folder that {flag} gave it, or a link to it there") from error
    kind = str(component.config.get("_class_name"))
    if component.scheduler is None:
        raise InputError(
            f"{folder} has no scheduler_config.json, which says on what noise it was trained; put it there"
        )
    network = loading.build(component.config, component.weights)
    channels, shown = data.shape[-1], network.example[0].shape[-1]
    told = set(network.example[2] or {}) if kind == "UNet2DModel" else {kind}
    if told - {"label"} or component.config.get("out_channels", 3) != shown:
        raise InputError(
            f"{folder} is told a condition that is no label, says a variance, or is no U-Net; only UNet2DModels of "
            "labels or of nothing are trained further"
        )
    if shown != channels:
        raise InputError(f"{folder} has {shown} channels; give data.shape as many, not {channels}")
    if told:
        data = pixels.with_labels(data, component.config["num_class_embeds"])
    return Opened(
        folder, network, component.config, component.scheduler, data, lambda: network.read(component.weights)
    )


def on_table(model: Opened) -> tuple[Sampling, int]:
    """(the parts of a model's scheduler, the entries of its table of betas).

    Raises:
      InputError: it has no table, or the network is told noise levels.
    """
    noise = model.scheduler
    if noise.get("_class_name", WITHOUT_TABLE[0]) in WITHOUT_TABLE:
        raise InputError(
            f"{model.folder} has no scheduler_config.json with a table of betas; this kind of training needs one"
        )
    if model.config.get("time_embedding_type") == "fourier":
        raise InputError(f"the network in {model.folder} is told noise levels, and its scheduler tells steps")
    return scheduler.sampling(noise), noise.get("num_train_timesteps", 1000)
