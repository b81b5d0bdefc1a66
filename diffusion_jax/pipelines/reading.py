"""How the weights of a published model are read: which files, in which dtype, and what is added to them."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold
from diffusion_jax.pretrained import encoders, first_stages, loading, lora
from diffusion_jax.pretrained.encoders import Encoder
from diffusion_jax.pretrained.families.lora_names import COMPONENTS
from diffusion_jax.pretrained.first_stages import FirstStage
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.formats.files import Component
from diffusion_jax.pretrained.lora import Lora
from diffusion_jax.pretrained.published import Network


class Reading(NamedTuple):
    """How weights are read.

    Attributes:
      variant: of the files, such as "fp16".
      dtype: of the parameters, and of what networks compute. None leaves parameters in the file's own dtype, and
        networks compute in float32: files of float16 are read so, whose networks may overflow it.
      loras: what is added to the U-Net and to the encoders of texts.
      skipped: layers of CLIP's encoders of texts that are left out of what prompts tell (`texts`).
    """

    variant: str = ""
    dtype: DTypeLike | None = np.float32
    loras: tuple[Lora, ...] = ()
    skipped: int = 0

    @property
    def computed(self) -> DTypeLike:
        """The dtype in which networks compute."""
        return np.float32 if self.dtype is None else self.dtype

    def check(self, name: str, parts: Iterable[str]) -> None:
        """`InputError` where a LoRA changes another part than `parts` of the model `name`."""
        has = [part for part in COMPONENTS if part in set(parts)]
        if self.loras and not has:
            raise InputError(f"--lora {self.loras[0].path}: {name} has no unet that a LoRA changes; leave it out")
        lora.check(self.loras, has)

    def added(self, component: Component, part: str) -> Component:
        """A part of a pipeline with the LoRAs of that part."""
        if not self.loras or part not in COMPONENTS:
            return component
        return component._replace(weights=lora.merged(component.weights, self.loras, part))

    def network(self, component: Component) -> tuple[Network, Hold]:
        """The network, and `() -> params`."""
        network = loading.build(component.config, component.weights)
        network = network._replace(model=network.model.clone(dtype=self.computed))
        return network, partial(network.read, component.weights, self.dtype)

    def encoder(self, root: Path, folder: str) -> Encoder:
        """The encoder in a folder of the pipeline at `root`, which reads in `dtype`."""
        loras = self.loras if folder in COMPONENTS else ()
        variant = files.variant_of(root / folder, self.variant)
        encoder = encoders.opened(root, folder, variant, dtype=self.computed, loras=loras)
        return encoder._replace(read=lambda dtype=self.dtype: encoder.read(dtype))

    def first_stage(self, name: str) -> FirstStage:
        """A first stage by itself, which reads in `dtype`; errors as of `first_stages.opened`."""
        return self._kept(first_stages.opened(name, self.variant, dtype=self.computed))

    def first_stage_beside(self, name: str) -> FirstStage | None:
        """That of the pipeline `name`, likewise; None where it has none."""
        stage = first_stages.beside(name, self.variant, self.computed)
        return stage and self._kept(stage)

    def _kept(self, stage: FirstStage) -> FirstStage:
        return stage._replace(read=lambda dtype=self.dtype: stage.read(dtype))
