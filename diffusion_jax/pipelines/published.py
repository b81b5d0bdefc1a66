"""Published models, to draw from: their networks, their weights, and the noise and sampler that their files name.

OpenAI's are composed in `pipelines.openai`.
"""

import re
from pathlib import Path

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.few_step import guided
from diffusion_jax.methods import edits
from diffusion_jax.methods.compose import MoreChains, nothing_more
from diffusion_jax.pipelines import chains, first_stages, told
from diffusion_jax.pipelines.first_stages import Decoder
from diffusion_jax.pipelines.openai import openai
from diffusion_jax.pipelines.told import Drawn
from diffusion_jax.pretrained import loading
from diffusion_jax.pretrained.first_stages import CLASSES
from diffusion_jax.pretrained.formats import files
from diffusion_jax.training.experiment import Drawable

__all__ = ["diffusers", "openai"]

KINDS = {
    "UNet2DModel": told.of_images,
    "UNet2DConditionModel": told.of_text,
    "DiTTransformer2DModel": told.of_dit,
    "Transformer2DModel": told.of_dit,
}
EDITS = {"CMStochasticIterativeScheduler": edits.projected}  # of others `edits.replaced`


def diffusers(
    name: str,
    variant: str = "",
    controlnet: str | None = None,
    size: str | None = None,
    sampler: str | None = None,
    more: MoreChains = nothing_more,
    first_stage: str | None = None,
    tile: int | None = None,
) -> Drawable:
    """A model as diffusers keeps it, to draw from; pictures, where a first stage lies beside its network.

    A first stage by itself draws what it makes of pictures (`first_stages.alone`).

    Args:
      name: a folder, or a name on the hub (`files.component`).
      variant: of the weights.
      controlnet: likewise, a ControlNet for it.
      size: "HxW" of the pictures, in place of the published one; of latents where nothing decodes them.
      sampler: the one that will be asked for. Where it is not the scheduler's own, a scheduler that is not known here
        does not stand in the way: its table of betas is enough.
      more: further chains on the scheduler's noise.
      first_stage: what decodes latents (`pretrained.first_stages.opened`), for a folder that has none.
      tile: pixels of the side of the tiles that it decodes on, where pictures are too large for the memory.

    Raises:
      InputError: files that are missing, damaged or of another kind, or values that are not implemented.
    """
    component = files.component(name, variant)
    kind = str(component.config.get("_class_name"))
    if kind in CLASSES:
        return first_stages.alone(name, variant, _size(size, component.config.get("sample_size"), None), tile)
    if component.scheduler is None:
        raise InputError(f"{name} has no scheduler_config.json, which says how to draw from it; put it there")
    if kind not in KINDS:
        raise InputError(f"{name} is a {kind[:60]!r}; of use are {', '.join(KINDS)}")
    network = loading.build(component.config, component.weights)
    decoder = first_stages.beside(name, variant, first_stage, tile)
    height, width = _size(size, component.config.get("sample_size"), decoder)
    given, said = network.example[0].shape[-1], chains.channels_said(network, height, width)
    shape = (height, width, min(given, said))
    scheduler, how = chains.noise(component.scheduler, sampler)
    chains.check_told(component.config, scheduler)
    factor = decoder.factor if decoder else 1
    asked = KINDS[kind](component.config, network, Drawn(shape, (height * factor, width * factor), how))
    how = chains.with_variance(how, said, shape[-1], scheduler)
    model, read = network.model, lambda: network.read(component.weights)
    if controlnet is not None and given > said:
        raise InputError(f"a ControlNet for a network that sees {given} channels and says {said} is not known")
    if controlnet is not None and guided.NAME in (network.example[2] or {}):
        raise InputError("a ControlNet for a network that is told the scale of guidance is not known")
    if given > said:
        model, read, asked = told.beside(model, read, asked, (height, width, given - said))
    if controlnet is not None:
        model, read, asked = told.controlled(network, component, controlnet, variant, asked, shape)

    drawn = chains.made(model, how, asked.guide, shape, scheduler, more, doubled=said > shape[-1])
    about = f"published {kind} of {name}"
    if scheduler is not component.scheduler:
        del drawn["published"]
        about += f", whose {str(component.scheduler.get('_class_name'))[:60]} is not used"

    def load():
        return read(), about, lambda sampler: Path("samples") / Path(name).name / sampler

    known = EDITS.get(scheduler["_class_name"], edits.replaced)
    drawable = Drawable(
        drawn, asked.condition, asked.view, load, shape, {**known(how.process), **edits.between(how.schedule)}
    )
    return drawable if decoder is None else first_stages.decoding(decoder, drawable)


def _size(text: str | None, published, decoder: Decoder | None) -> tuple[int, int]:
    """Of what the network draws; `text` is that of the pictures."""
    if text is None:
        if published is None:
            raise InputError("the model's files do not say how large its images are; give --size HxW")
        return tuple(np.broadcast_to(published, 2).tolist())
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text.lower(), re.ASCII)
    if found is None or not all(map(int, found.groups())):
        raise InputError(f"--size {text[:100]}: give height and width, such as 32x32")
    height, width = int(found[1]), int(found[2])
    return (height, width) if decoder is None else decoder.latents_of(height, width)
