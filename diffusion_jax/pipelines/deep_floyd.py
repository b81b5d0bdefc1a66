"""DeepFloyd's IF, Imagen's cascade in the open: a text to 64x64 pixels, and a network that enlarges them."""

import numpy as np

from diffusion_jax.core import resizing
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL, Noising
from diffusion_jax.diffusion.stages import Shape
from diffusion_jax.methods import edits
from diffusion_jax.models.unets.beside import BESIDE, Beside
from diffusion_jax.pipelines import denoisers, enlarging, staged
from diffusion_jax.pipelines.denoisers import Denoiser
from diffusion_jax.pipelines.index import Index
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pipelines.staged import Asked, Link
from diffusion_jax.pretrained.formats.files import SCHEDULER
from diffusion_jax.pretrained.schedulers.scheduler import table_of
from diffusion_jax.training.experiment import Drawable

BASE, LARGE, IMAGE = "unet", "super_res", "image"
NOISE = "image_noising_scheduler"
STEPS = {BASE: 100, LARGE: 50}
GUIDANCE = {BASE: 7.0, LARGE: 4.0}
USUAL_LEVEL = 250.0  # of the noise on the small picture


def base(whole: Index, reading: Reading, size: str | None, asked: Asked, upscaler: Index | None = None) -> Drawable:
    """Stage I, and stage II after it where its folder is given; the encoder of texts is that of the first.

    Without stage II it also begins from a picture, or keeps a part of one.

    The sampler, steps and guidance that a person asks for are those of stage I; `asked` has those of "super_res".

    Args:
      whole: the folder of stage I.
      reading: how the weights are read.
      size: of the pictures of stage I.
      asked: stage -> its options (`Link.asked`).
      upscaler: the folder of stage II.

    Raises:
      InputError: a part is missing or of another kind, or an option is not known.
    """
    staged.check_known(asked, *([LARGE] if upscaler else []))
    first = _opened(whole, reading, size)
    text = staged.texts_of(first.network)
    small = Link(BASE, first.guided(GUIDANCE[BASE], STEPS[BASE]), text, IMAGE, first.shape)
    if upscaler is None:
        samplers = staged.around([], small, [], text, IMAGE)
        drawable = staged.drawable(whole, reading, text, samplers, {BASE: first.read}, first.shape)
        return drawable._replace(edits=edits.clean(first.how.process))
    second, noise = _second(upscaler, reading._replace(loras=()), None)  # a LoRA is of stage I
    small = small._replace(into=LOW)
    show = enlarging.showing(resizing.aligned, noise, first.shape, second.shape[:2])
    large = _large(second, text)
    after = [*map(staged.always, show), large.asked(asked.get(LARGE, {}))]
    given = {**text, LEVEL: ()}
    upscaler.tell_left_out()
    drawable = staged.drawable(
        whole,
        reading,
        text,
        staged.around([], small, after, given, IMAGE),
        {BASE: first.read, LARGE: _read(second)},
        second.shape,
        {LEVEL: np.array([USUAL_LEVEL], np.float32)},
    )
    return drawable._replace(sample_condition=enlarging.checked(drawable.sample_condition, noise))


def second(whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    """Stage II by itself, which enlarges a picture by a text, and may know of the large one too.

    Arguments and errors as of `base`.
    """
    staged.check_known(asked)
    large, noise = _second(whole, reading, size)
    text = staged.texts_of(large.network)
    link = _large(large, text)
    samplers = staged.around([], link, [], link.needs, IMAGE)
    usual = {LEVEL: np.array([USUAL_LEVEL], np.float32)}
    drawable = staged.drawable(whole, reading, text, samplers, {LARGE: _read(large)}, large.shape, usual)
    drawable = drawable._replace(sample_condition=enlarging.checked(drawable.sample_condition, noise))
    low = (None, None, large.shape[-1])  # of any factor
    show = enlarging.showing(resizing.aligned, noise, low, large.shape[:2])
    return enlarging.by_picture(drawable, show, low, edits.clean(large.how.process))


def _opened(whole: Index, reading: Reading, size: str | None, shown: int = 1) -> Denoiser:
    """A stage; it sees `shown` pictures, the noisy one among them."""
    whole.check(BASE, "scheduler")
    part = denoisers.part(whole.root, BASE, "scheduler", reading)
    channels, rest = divmod(part.config.get("in_channels", 0), shown)
    if rest or channels not in (1, 3):
        raise InputError(
            f"{whole.root}, a {whole.kind}, sees {part.config.get('in_channels')} channels; it is damaged"
        )
    return denoisers.opened(part, reading, denoisers.size_of(size, part.config.get("sample_size")), channels=channels)


def _second(whole: Index, reading: Reading, size: str | None) -> tuple[Denoiser, Noising]:
    whole.check(NOISE)
    return _opened(whole, reading, size, shown=2), table_of(json_object(whole.root / NOISE / SCHEDULER))


def _large(denoiser: Denoiser, text: dict[str, Shape]) -> Link:
    needs = {**text, LEVEL: (), BESIDE: denoiser.shape}
    return Link(
        LARGE,
        denoiser.guided(GUIDANCE[LARGE], STEPS[LARGE], Beside(denoiser.network.model)),
        needs,
        IMAGE,
        denoiser.shape,
    )


def _read(denoiser: Denoiser):
    return lambda: {"network": denoiser.read()}
