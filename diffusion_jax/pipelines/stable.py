"""Stable Diffusion's relatives of several stages: the x4 upscaler, and Stable unCLIP."""

import numpy as np

from diffusion_jax.core.files import json_object
from diffusion_jax.core.protocols import Hold
from diffusion_jax.diffusion import stages, unclip
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.stages import Shape
from diffusion_jax.models.blocks.layers import cosinusoid
from diffusion_jax.models.unets.beside import BESIDE, Beside
from diffusion_jax.pipelines import denoisers, enlarging, first_stages, staged, told
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
UNCLIP_STEPS, UNCLIP_GUIDANCE, PRIOR_STEPS, PRIOR_GUIDANCE = 20, 10.0, 25, 4.0
OF_PRIOR = "prior_"  # before the entries that the prior's own encoder makes of a text


def upscaler(whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    """The x4 upscaler: latents beside a small picture of their size with noise, at a level told as a label.

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
    noise = table_of(json_object(_file(whole, "low_res_scheduler", SCHEDULER)))
    most = json_object(whole.root / FILE).get("max_noise_level", MOST_LEVEL)
    text = _text(denoiser)
    low = (*denoiser.shape[:2], denoiser.seen - denoiser.shape[-1])
    samplers = denoiser.samplers(told.by_nulls(denoiser.how, 9.0), Beside(denoiser.network.model))
    needs = {**text, LABEL: (), BESIDE: low}
    main = Link(CHAIN, samplers, needs, LATENT, denoiser.shape)
    decode, shape = _decode(decoder, denoiser.shape)
    read: dict[str, Hold] = {CHAIN: lambda: {"network": denoiser.read()}, DECODER: decoder.stage.read}
    usual = {LABEL: np.array([USUAL_LEVEL])}
    made = staged.around([], main, [decode], needs, IMAGE)
    drawable = staged.drawable(whole, reading, text, made, read, shape, usual)
    drawable = drawable._replace(sample_condition=enlarging.checked(drawable.sample_condition, LABEL, noise, most))
    return enlarging.by_picture(drawable, enlarging.showing(_as_it_is, noise, low, low[:2]), LABEL, low)


def stable_unclip(whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    """Stable unCLIP: a prior draws the embedding of a picture, which a network of latents is told, with noise.

    The sampler, steps and guidance that a person asks for are those of the latents; `asked` has those of "prior".
    The level of the noise is "noise_level", 0 where nobody says it. Arguments and errors as of `upscaler`.
    """
    staged.check_known(asked, PRIOR)
    denoiser, decoder = _latents(whole, reading, size)
    prior = denoisers.opened(denoisers.part(whole.root, PRIOR, "prior_scheduler", reading), reading, ())
    noise = table_of(json_object(_file(whole, "image_noising_scheduler", SCHEDULER)))
    variant = files.variant_of(whole.root / NORMALIZER, reading.variant)
    statistics = files.component(whole.root, variant, folders=(NORMALIZER,))
    features = prior.shape[0]
    heard = {OF_PRIOR + name: shape for name, shape in staged.heard(prior.network).items()}
    text = {**_text(denoiser), **staged.with_nulls(heard)}
    drawn = Link(PRIOR, _prior(prior), staged.with_nulls(heard), unclip.IMAGE, prior.shape)
    before: list[StageOf] = [
        drawn.asked({"steps": PRIOR_STEPS, **asked.get(PRIOR, {})}),
        staged.gathered(unclip.renoised(VECTOR, noise, cosinusoid, features)),
    ]
    usual = denoiser._replace(scheduler={**denoiser.scheduler, "steps": UNCLIP_STEPS})
    needs = {**_text(denoiser), **staged.with_nulls({VECTOR: (2 * features,)})}
    samplers = usual.samplers(told.by_nulls(denoiser.how, UNCLIP_GUIDANCE))
    main = Link(CHAIN, samplers, needs, LATENT, denoiser.shape)
    decode, shape = _decode(decoder, denoiser.shape)
    read = {
        PRIOR: prior.read,
        VECTOR: lambda: normalizer(statistics.config, statistics.weights),
        CHAIN: denoiser.read,
        DECODER: decoder.stage.read,
    }
    made = staged.around(before, main, [decode], {**text, LEVEL: ()}, IMAGE)
    level = {LEVEL: np.zeros(1, np.float32)}
    drawable = staged.drawable(whole, reading, text, made, read, shape, level)
    return drawable._replace(sample_condition=enlarging.checked(drawable.sample_condition, LEVEL, noise))


def _latents(whole: Index, reading: Reading, size: str | None) -> tuple[Denoiser, Decoder]:
    whole.check(CHAIN, "scheduler", DECODER)
    decoder = first_stages.beside(str(whole.root), reading)
    assert decoder is not None
    part = denoisers.part(whole.root, CHAIN, "scheduler", reading)
    size_of = denoisers.size_of(size, part.config.get("sample_size"), decoder)
    return denoisers.opened(part, reading, size_of), decoder


def _text(denoiser: Denoiser) -> dict[str, Shape]:
    return staged.with_nulls({"tokens": (None, denoiser.network.example[2]["tokens"].shape[-1])})


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

    made = prior.samplers(told.by_nulls(prior.how, PRIOR_GUIDANCE))
    return {name: renamed(make) for name, make in made.items()}


def _file(whole: Index, folder: str, name: str):
    whole.check(folder)
    return whole.root / folder / name


def _as_it_is(x, size):
    return x
