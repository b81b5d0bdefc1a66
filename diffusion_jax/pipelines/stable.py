"""Stable Diffusion's relatives of several stages: the x4 upscaler, and Stable unCLIP."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from diffusion_jax.autoencoding.latents import Scaling
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.core.protocols import Hold
from diffusion_jax.diffusion import stages, unclip
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.stages import Shape
from diffusion_jax.models.blocks.layers import cosinusoid
from diffusion_jax.models.unets.beside import BESIDE, Beside
from diffusion_jax.pipelines import denoisers, enlarging, first_stages, likes, staged
from diffusion_jax.pipelines.denoisers import Denoiser
from diffusion_jax.pipelines.first_stages import Decoder
from diffusion_jax.pipelines.index import FILE, Index
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pipelines.staged import Asked, Link, StageOf
from diffusion_jax.pretrained.families.prior import normalizer
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.formats.files import SCHEDULER
from diffusion_jax.pretrained.schedulers.scheduler import table_of
from diffusion_jax.training.experiment import Drawable, MakeSampler

CHAIN, DECODER, PRIOR, VECTOR = first_stages.CHAIN, "vae", "prior", "vector"
NORMALIZER = "image_normalizer"
LATENT, IMAGE, LABEL = "latent", "image", "label"
USUAL_LEVEL = 20  # of the noise on the picture that the x4 upscaler enlarges
MOST_LEVEL = 350
UPSCALER_GUIDANCE, UPSCALER_SCALE = 9.0, 0.08333
UNCLIP_STEPS, UNCLIP_GUIDANCE, PRIOR_STEPS, PRIOR_GUIDANCE = 20, 10.0, 25, 4.0
OF_PRIOR = "prior_"  # before the entries that the prior's own encoder makes of a text


def upscaler(whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    """The x4 upscaler: latents beside a small picture of their size with noise, at a level told as a label.

    The level is "noise_level", 20 where nobody says it.

    Args:
      whole: the pipeline's folder.
      reading: how the weights are read.
      size: of the large pictures.
      asked: nothing; there is one chain.

    Raises:
      InputError: a part is missing or of another kind, or an option is not known.
    """
    staged.check_known(asked)
    denoiser, decoder = _latents(whole, reading, size)
    if "scaling_factor" not in json_object(_file(whole, DECODER, "config.json")):
        decoder = decoder._replace(scaling=Scaling(UPSCALER_SCALE))  # files of old do not say it
    noise = table_of(json_object(_file(whole, "low_res_scheduler", SCHEDULER)))
    most = json_object(whole.root / FILE).get("max_noise_level", MOST_LEVEL)
    levels = denoiser.config.get("num_class_embeds")
    if levels is None or type(most) is not int or most < 0:
        raise InputError(
            f"{whole.root}: max_noise_level = {str(most)[:40]} and num_class_embeds = {levels}; "
            "an x4 upscaler has whole numbers from 0 on for both"
        )
    text = staged.texts_of(denoiser.network)
    low = (*denoiser.shape[:2], denoiser.seen - denoiser.shape[-1])
    samplers = denoiser.guided(UPSCALER_GUIDANCE, model=Beside(denoiser.network.model))
    # Its network is told the level as one of its labels.
    label = stages.arrays(LABEL, lambda cond: {LABEL: cond[LEVEL].astype(np.int32)}, {LEVEL: ()}, {LABEL: ()})
    main = Link(CHAIN, samplers, {**text, LABEL: (), BESIDE: low}, LATENT, denoiser.shape)
    decode, shape = _decode(decoder, denoiser.shape)
    read: dict[str, Hold] = {CHAIN: lambda: {"network": denoiser.read()}, DECODER: decoder.stage.read}
    made = staged.around([staged.always(label)], main, [decode], {**text, LEVEL: (), BESIDE: low}, IMAGE)
    usual = {LEVEL: np.array([USUAL_LEVEL], np.float32)}
    drawable = staged.drawable(whole, reading, text, made, read, shape, usual)
    condition = enlarging.checked(drawable.sample_condition, noise, most, levels - 1)
    show = enlarging.showing(_as_it_is, noise, low, low[:2])
    return enlarging.by_picture(drawable._replace(sample_condition=condition), show, low)


def stable_unclip(whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    """Stable unCLIP: a prior draws the embedding of a picture, which a network of latents is told, with noise.

    The sampler, steps and guidance that a person asks for are those of the latents; `asked` has those of "prior".
    The level of the noise is "noise_level", 0 where nobody says it. Arguments and errors as of `upscaler`.
    """
    staged.check_known(asked, PRIOR)
    whole.check(PRIOR, "prior_scheduler")
    prior = denoisers.opened(denoisers.part(whole.root, PRIOR, "prior_scheduler", reading), reading, ())
    heard = staged.with_nulls({OF_PRIOR + name: shape for name, shape in staged.heard(prior.network).items()})
    drawn = Link(PRIOR, _prior(prior), heard, unclip.IMAGE, prior.shape)
    draw = drawn.asked({"steps": PRIOR_STEPS, **asked.get(PRIOR, {})})
    return _of_embeddings(whole, reading, size, prior.shape[0], [draw], {PRIOR: prior.read}, heard)


def variations(whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    """Stable unCLIP without a prior: variations of a picture, "like", or of its "image_embedding".

    A text may steer them. The level of the noise on the embedding, arguments and errors are as of `stable_unclip`.
    """
    staged.check_known(asked)
    pictures = likes.of_folder(whole, reading)
    embedding = {unclip.IMAGE: (pictures.features,)}
    made = _of_embeddings(whole, reading, size, pictures.features, [], {}, {}, embedding)
    return made._replace(sample_condition=likes.telling(pictures, ("tokens",), made.sample_condition))


def _of_embeddings(
    whole: Index,
    reading: Reading,
    size: str | None,
    features: int,
    before: Sequence[StageOf],
    read: Mapping[str, Hold],
    heard: Mapping[str, Shape],
    further: Mapping[str, Shape] = MappingProxyType({}),
) -> Drawable:
    """A network of latents that is told a picture's embedding, with noise.

    Args:
      whole, reading, size: as of `upscaler`.
      features: of an embedding.
      before: the stages that give "image_embedding".
      read: their parameters.
      heard: what they are told of texts.
      further: what is told in their place.
    """
    denoiser, decoder = _latents(whole, reading, size)
    noise = table_of(json_object(_file(whole, "image_noising_scheduler", SCHEDULER)))
    variant = files.variant_of(whole.root / NORMALIZER, reading.variant)
    statistics = files.component(whole.root, variant, folders=(NORMALIZER,))
    noisy = staged.gathered(unclip.renoised(VECTOR, noise, cosinusoid, features))
    own = staged.texts_of(denoiser.network)
    needs = own | staged.with_nulls({VECTOR: (2 * features,)})
    main = Link(CHAIN, denoiser.guided(UNCLIP_GUIDANCE, UNCLIP_STEPS), needs, LATENT, denoiser.shape)
    decode, shape = _decode(decoder, denoiser.shape)
    text = {**own, **heard}
    made = staged.around([*before, noisy], main, [decode], {**text, **further, LEVEL: ()}, IMAGE)
    held: dict[str, Hold] = {
        **read,
        VECTOR: lambda: normalizer(statistics.config, statistics.weights),
        CHAIN: denoiser.read,
        DECODER: decoder.stage.read,
    }
    level = {LEVEL: np.zeros(1, np.float32)}
    drawable = staged.drawable(whole, reading, text, made, held, shape, level, further)
    return drawable._replace(sample_condition=enlarging.checked(drawable.sample_condition, noise))


def _latents(whole: Index, reading: Reading, size: str | None) -> tuple[Denoiser, Decoder]:
    whole.check(CHAIN, "scheduler", DECODER)
    decoder = first_stages.beside(str(whole.root), reading)
    assert decoder is not None
    part = denoisers.part(whole.root, CHAIN, "scheduler", reading)
    size_of = denoisers.size_of(size, part.config.get("sample_size"), decoder)
    return denoisers.opened(part, reading, size_of), decoder


def _decode(decoder: Decoder, latent: tuple[int, ...]) -> tuple[StageOf, tuple[int, int, int]]:
    """The decoder as a stage, and the shape of its pictures."""
    shape = (latent[0] * decoder.factor, latent[1] * decoder.factor, decoder.stage.network.example[0].shape[-1])
    within = first_stages.within(decoder, shape)

    def say(params, cond):
        return {IMAGE: within.decode(params, cond[LATENT], {})}

    return staged.gathered(stages.encode(DECODER, say, {LATENT: latent}, {IMAGE: shape})), shape


def _prior(prior: Denoiser) -> dict[str, MakeSampler]:
    """The prior's samplers, of the entries that its own encoder makes."""

    def renamed(make: MakeSampler) -> MakeSampler:
        def made(request):
            draw = unclip.restoring(make(request), request.gather)
            return lambda params, keys, cond: draw(
                params, keys, {name.replace(OF_PRIOR, "", 1): x for name, x in cond.items()}
            )

        return made

    return {name: renamed(make) for name, make in prior.guided(PRIOR_GUIDANCE).items()}


def _file(whole: Index, folder: str, name: str):
    whole.check(folder)
    return whole.root / folder / name


def _as_it_is(x, size):
    return x
