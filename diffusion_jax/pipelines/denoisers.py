"""A published network with the noise that its scheduler's file names: what a chain of a pipeline is made of."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.core.protocols import Hold
from diffusion_jax.methods.compose import MakeGuide, MoreChains, nothing_more
from diffusion_jax.pipelines import chains, told
from diffusion_jax.pipelines.first_stages import Decoder
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.formats.files import SCHEDULER, Component
from diffusion_jax.pretrained.published import Network
from diffusion_jax.pretrained.schedulers.scheduler import Sampling
from diffusion_jax.training.experiment import MakeSampler


class Denoiser(NamedTuple):
    """A network, to draw from.

    Attributes:
      network: the module, and the table of its weights.
      config: its config.json.
      scheduler: the scheduler's config that it is drawn with.
      how: what that says.
      shape: of one sample.
      seen: channels of its input: those of a sample, and of what is laid beside it.
      said: channels of its output: those of a sample, or twice as many with a variance.
      read: `() -> params`.
    """

    network: Network
    config: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    how: Sampling
    shape: tuple[int, ...]
    seen: int
    said: int
    read: Hold

    def samplers(
        self, guide: MakeGuide, model: Any = None, more: MoreChains = nothing_more
    ) -> dict[str, MakeSampler]:
        """Its samplers, the scheduler's own first; `model` is a network around it, where there is one."""
        doubled = self.said > self.shape[-1]
        return chains.made(
            model or self.network.model, self.how, guide, self.shape, self.scheduler, more, doubled=doubled
        )

    def guided(self, scale: float, steps: int | None = None, model: Any = None) -> dict[str, MakeSampler]:
        """Its samplers, guided away from entries "null_NAME" (`told.by_nulls`).

        Args:
          scale: of the guidance, where nobody asks for another.
          steps: likewise; None for the scheduler's own.
          model: as of `samplers`.
        """
        usual = self if steps is None else self._replace(scheduler={**self.scheduler, "steps": steps})
        return usual.samplers(told.by_nulls(self.how, scale), model)


def opened(
    component: Component,
    reading: Reading,
    size: tuple[int, ...],
    sampler: str | None = None,
    channels: int | None = None,
) -> Denoiser:
    """A network of images, of latents, or of vectors.

    Args:
      component: the network's files; its scheduler is there.
      reading: how the weights are read.
      size: height and width of what it draws; () of vectors.
      sampler: as of `published.diffusers`.
      channels: of a sample; the fewer of the network's input and output, where it is not said.

    Raises:
      InputError: a config or a scheduler that is not known, or a size that the network cannot have.
    """
    network, read = reading.network(component)
    assert component.scheduler is not None
    seen, said = network.example[0].shape[-1], chains.channels_said(network, *size)
    shape = (*size, channels or min(seen, said))
    scheduler, how = chains.noise(component.scheduler, sampler)
    chains.check_told(component.config, scheduler)
    how = chains.with_variance(how, said, shape[-1], scheduler)
    return Denoiser(network, component.config, scheduler, how, shape, seen, said, read)


def part(root: Path, folder: str, scheduler: str, reading: Reading) -> Component:
    """The network in the folder `folder` of the pipeline at `root`, with the scheduler in that other folder of it.

    LoRAs of the part are added.

    Raises:
      InputError: one of them is missing or damaged, or a LoRA is of another network.
    """
    path = root / scheduler / SCHEDULER
    if not path.is_file():
        raise InputError(f"{root} has no {scheduler}/{SCHEDULER}, which says how to draw by {folder}/; get the whole")
    found = reading.added(files.component(root, reading.variant, folders=(folder,)), folder)
    return found._replace(scheduler=json_object(path))


def size_of(text: str | None, published: Any, decoder: Decoder | None = None) -> tuple[int, int]:
    """Height and width of what a network draws.

    Args:
      text: "HxW" of the pictures that come of it; None for the published size.
      published: that of its config: a number, two, or None.
      decoder: what makes pictures of it, where something does.

    Raises:
      InputError: another text, or nothing says it.
    """
    if text is None:
        if published is None:
            raise InputError("the model's files do not say how large its images are; give --size HxW")
        return tuple(np.broadcast_to(published, 2).tolist())
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text.lower(), re.ASCII)
    if found is None or not all(map(int, found.groups())):
        raise InputError(f"--size {text[:100]}: give height and width, such as 32x32")
    height, width = int(found[1]), int(found[2])
    return (height, width) if decoder is None else decoder.latents_of(height, width)
