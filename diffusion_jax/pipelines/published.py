"""Published models, to draw from: their networks, their weights, and the noise and sampler that their files name.

OpenAI's are composed in `pipelines.openai`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import SampleCondition
from diffusion_jax.diffusion.few_step import guided
from diffusion_jax.methods import edits
from diffusion_jax.methods.compose import MoreChains, nothing_more
from diffusion_jax.models.unets.beside import Beside
from diffusion_jax.pipelines import (
    deep_floyd,
    denoisers,
    first_stages,
    inpainting,
    prompts,
    refining,
    stable,
    staged,
    texts,
    told,
    unclip,
)
from diffusion_jax.pipelines.denoisers import size_of
from diffusion_jax.pipelines.first_stages import Decoder
from diffusion_jax.pipelines.index import Index, index, located
from diffusion_jax.pipelines.openai import openai
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pipelines.staged import Asked
from diffusion_jax.pipelines.told import Drawn, Told
from diffusion_jax.pretrained.families.lora_names import UNET
from diffusion_jax.pretrained.first_stages import CLASSES
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.formats.files import Component
from diffusion_jax.pretrained.lora import Lora
from diffusion_jax.training.experiment import Drawable, Encoding

__all__ = ["diffusers", "openai"]

KINDS = {
    "UNet2DModel": told.of_images,
    "UNet2DConditionModel": told.of_text,
    "DiTTransformer2DModel": told.of_dit,
    "Transformer2DModel": told.of_dit,
}
PIPELINES = {  # of several stages beside encoders and a decoder
    "UnCLIPPipeline": unclip.karlo,
    "UnCLIPImageVariationPipeline": unclip.variations,
    "StableUnCLIPPipeline": stable.stable_unclip,
    "StableUnCLIPImg2ImgPipeline": stable.variations,
    "StableDiffusionUpscalePipeline": stable.upscaler,
    "IFPipeline": deep_floyd.base,
    "IFImg2ImgPipeline": deep_floyd.base,
    "IFInpaintingPipeline": deep_floyd.base,
    "IFSuperResolutionPipeline": deep_floyd.second,
    "IFImg2ImgSuperResolutionPipeline": deep_floyd.second,
    "IFInpaintingSuperResolutionPipeline": deep_floyd.second,
}
UNETS = ("UNet2DModel", "UNet2DConditionModel")
# Of others `edits.on_path`, where texts say which latents are drawn, and else `edits.replaced`.
EDITS = {"CMStochasticIterativeScheduler": edits.projected}


def diffusers(
    name: str,
    variant: str = "",
    controlnet: str | None = None,
    size: str | None = None,
    sampler: str | None = None,
    more: MoreChains = nothing_more,
    first_stage: str | None = None,
    tile: int | None = None,
    asked: Asked = MappingProxyType({}),
    upscaler: str | None = None,
    refiner: str | None = None,
    dtype: DTypeLike | None = np.float32,
    loras: Sequence[Lora] = (),
    clip_skip: int = 0,
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
      upscaler: a folder of the stage II that enlarges the pictures of a DeepFloyd's IF.
      refiner: a network of the same latents, which goes on from what this draws (`refining`).
      asked: of a pipeline of several chains, stage -> its options (`staged.Link.asked`).
      dtype: of the parameters, and of what networks compute (`reading.Reading`); chains are float32.
      loras: what is added to the U-Net and to the encoders of texts (`pretrained.lora`).
      clip_skip: layers of CLIP's encoders of texts that prompts leave out, the last ones first; negatives do not.

    Raises:
      InputError: files that are missing, damaged or of another kind, or values that are not implemented.
    """
    root, reading = located(name, variant), Reading(variant, dtype, tuple(loras), clip_skip)
    whole = index(root, name)
    texts.check_skipped(name, whole, reading)
    if whole is not None and whole.kind in PIPELINES:
        others = {"--refiner": refiner, "--controlnet": controlnet, "--first-stage": first_stage, "--tile": tile}
        given = [flag for flag, value in others.items() if value] + ["--chains"] * (more is not nothing_more)
        if given:
            raise InputError(f"{name} is a {whole.kind}, which takes no {' and no '.join(given)}; leave it out")
        make = PIPELINES[whole.kind] if upscaler is None else partial(_cascade, upscaler)
        reading.check(name, whole.parts)
        return make(whole, reading, size, asked)
    if upscaler is not None:
        raise InputError(f"--upscaler {upscaler} is of DeepFloyd's IF, and {name} is another model; leave it out")
    staged.check_known(asked, *([refining.REFINER] if refiner else []))
    component = files.component(root, variant)
    kind = str(component.config.get("_class_name"))
    reading.check(name, whole.parts if whole else [UNET] if kind in UNETS else [])
    if kind in CLASSES:
        return first_stages.alone(name, reading, size_of(size, component.config.get("sample_size")), tile)
    _check(name, component)
    decoder = first_stages.beside(str(root), reading, first_stage, tile)
    shape = size_of(size, component.config.get("sample_size"), decoder)
    drawable, painting = _network(name, whole, reading, component, shape, sampler, decoder, more, controlnet)
    if decoder is None:
        if refiner is not None:
            raise InputError(f"--refiner {refiner} is of latents that something decodes; {name} has no first stage")
        return drawable
    # As a stage of a pipeline, by whose name it draws.
    keyed = {sampler: staged.keyed(first_stages.CHAIN, make) for sampler, make in drawable.samplers.items()}
    drawable = drawable._replace(samplers=keyed)
    if refiner is not None:
        drawable = _refined(refiner, drawable, reading, decoder, asked.get(refining.REFINER, {}))
    pictures = first_stages.decoding(decoder, drawable)
    return (
        inpainting.shown(first_stages.within(decoder, pictures.shape), decoder.factor, pictures)
        if painting
        else pictures
    )


def _network(
    name: str,
    whole: Index | None,
    reading: Reading,
    component: Component,
    size: tuple[int, ...],
    sampler: str | None,
    decoder: Decoder | None,
    more: MoreChains = nothing_more,
    controlnet: str | None = None,
) -> tuple[Drawable, bool]:
    """A network, to draw from by itself: of `size`, which `decoder` enlarges; and whether it paints (`inpainting`).

    Other arguments and errors as of `diffusers`.
    """
    kind = _check(name, component)
    added = reading.added(component, UNET) if kind in UNETS else component
    denoiser = denoisers.opened(added, reading, size, sampler)
    network, how, shape, scheduler = denoiser.network, denoiser.how, denoiser.shape, denoiser.scheduler
    factor = decoder.factor if decoder else 1
    scored = whole and whole.flag("requires_aesthetics_score")
    pixels = (shape[0] * factor, shape[1] * factor)
    heard = KINDS[kind](component.config, network, Drawn(shape, pixels, how, scored))
    model, read = network.model, denoiser.read
    beside = denoiser.seen - shape[-1]
    if controlnet is not None and beside:
        raise InputError(
            f"a ControlNet for a network that sees {denoiser.seen} channels and says {denoiser.said} is not known"
        )
    if controlnet is not None and guided.NAME in (network.example[2] or {}):
        raise InputError("a ControlNet for a network that is told the scale of guidance is not known")
    painting = decoder is not None and beside == 1 + shape[-1]
    if painting:
        model, read = Beside(model), lambda: {"network": denoiser.read()}
    elif beside:
        model, read, heard = told.beside(model, read, heard, (*shape[:2], beside))
    if controlnet is not None:
        model, read, heard = told.controlled(network, denoiser.read, controlnet, reading, heard, shape)

    encoding = None
    if heard.text:
        condition, encoding, pooled = _of_texts(name, whole, reading, heard)
        if pooled is not None:
            told.sizes_beside(component.config, pooled, scored)
        heard = heard._replace(condition=condition)
    drawn = denoiser.samplers(heard.guide, model, more)
    about = f"published {kind} of {name}"
    assert component.scheduler is not None  # checked
    if scheduler is not component.scheduler:
        del drawn["published"]
        about += f", whose {str(component.scheduler.get('_class_name'))[:60]} is not used"

    def load():
        return read(), about, lambda sampler: Path("samples") / Path(name).name / sampler

    known = EDITS.get(scheduler["_class_name"], edits.on_path if decoder and heard.text else edits.replaced)
    edited = {**known(how.process), **edits.between(how.schedule)}
    return Drawable(drawn, heard.condition, heard.view, load, shape, edited, encoding=encoding), painting


def _refined(
    refiner: str, base: Drawable, reading: Reading, decoder: Decoder, options: Mapping[str, Any]
) -> Drawable:
    root, reading = located(refiner, reading.variant), reading._replace(loras=(), skipped=0)
    component, whole = files.component(root, reading.variant), index(root, refiner)
    own = first_stages.beside(str(root), reading)
    if own is not None and not all(map(np.array_equal, own.scaling, decoder.scaling)):
        raise InputError(f"--refiner {refiner} is of latents of another scale than those of {decoder.about}")
    size = base.shape[:2]
    made, painting = _network(refiner, whole, reading, component, size, options.get("sampler"), decoder)
    if painting:
        raise InputError(f"--refiner {refiner} fills holes in pictures; a network of latents alone is expected")
    return refining.refined(base, made, options)


def _check(name: str, component: Component) -> str:
    """The class of a network that is drawn from."""
    kind = str(component.config.get("_class_name"))
    if component.scheduler is None:
        raise InputError(f"{name} has no scheduler_config.json, which says how to draw from it; put it there")
    if kind not in KINDS:
        raise InputError(f"{name} is a {kind[:60]!r}; of use are {', '.join(KINDS)}")
    return kind


def _cascade(upscaler: str, whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    above = index(located(upscaler, reading.variant), upscaler)
    if above is None or PIPELINES[whole.kind] is not deep_floyd.base or above.kind != "IFSuperResolutionPipeline":
        kind = above.kind if above else "no pipeline"
        raise InputError(
            f"--upscaler {upscaler} is a {kind}: a stage II of DeepFloyd's IF enlarges those of a stage I"
        )
    return deep_floyd.base(whole, reading, size, asked, above)


def _of_texts(
    name: str, whole: Index | None, reading: Reading, heard: Told
) -> tuple[SampleCondition, Encoding | None, int | None]:
    """The condition of a network of texts, which are encoded where the folder has encoders of them.

    Beside it, how texts enter its program, and how many features a pooled one has; None where there are none.
    """
    found = whole and texts.of_folder(whole, reading)
    if whole is None or found is None:
        what = f"a {whole.kind}, whose encoders are not known" if whole else "one network without encoders of texts"
        remedy = f"{name} is {what}; give --condition FILE.npz with {', '.join(heard.text)}"
        return prompts.refusing(remedy, heard), None, None
    whole.tell_left_out()
    pooled = found.parts[-1].encoder.network.model.projection if told.POOLED in heard.text else None
    return prompts.telling(found, heard), prompts.encoding(found, heard), pooled
