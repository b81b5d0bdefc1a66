"""unCLIP's pipelines: Karlo's, from a text to a picture by a prior, a decoder and two networks that enlarge.

Of another picture in place of the prior's embedding it draws variations.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jax.numpy as jnp

from diffusion_jax.core import resizing
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold, SampleFn
from diffusion_jax.diffusion import stages, unclip
from diffusion_jax.diffusion.samplers import Turn, in_turn
from diffusion_jax.diffusion.stages import Shape
from diffusion_jax.models.unets.beside import BESIDE, Beside
from diffusion_jax.pipelines import denoisers, likes, staged
from diffusion_jax.pipelines.denoisers import Denoiser
from diffusion_jax.pipelines.index import Index
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pipelines.staged import Asked, Link, StageOf
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.published import Network
from diffusion_jax.training.experiment import OPTIONS, Drawable, MakeSampler, SampleRequest

PRIOR, PROJECTION, DECODER, FIRST, LAST = "prior", "text_proj", "decoder", "super_res_first", "super_res_last"
SCHEDULERS = {DECODER: "decoder_scheduler", FIRST: "super_res_scheduler"}
ENLARGED = "super_res"  # the stage of both networks that enlarge
STEPS = {PRIOR: 25, DECODER: 25, ENLARGED: 7}
GUIDANCE = {PRIOR: 4.0, DECODER: 8.0}
IMAGE, SMALL = "image", "low_res"


def karlo(whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    """Karlo: the prior draws an embedding of a picture, the decoder the picture, and two networks enlarge it.

    The sampler, steps and guidance that a person asks for are the decoder's; `asked` has those of "prior" and
    "super_res".

    Args:
      whole: the pipeline's folder.
      reading: how the weights are read.
      size: of the pictures; None for the published one, which is the only one.
      asked: stage -> its options (`Link.asked`).

    Raises:
      InputError: a part is missing or of another kind, or an option is not known.
    """
    staged.check_known(asked, PRIOR, ENLARGED)
    whole.check(PRIOR, "prior_scheduler")
    prior = denoisers.opened(denoisers.part(whole.root, PRIOR, "prior_scheduler", reading), reading, ())
    text = staged.with_nulls(staged.heard(prior.network))
    embedding = Link(PRIOR, _restored(prior), text, unclip.IMAGE, prior.shape)
    draw = embedding.asked({"steps": STEPS[PRIOR], **asked.get(PRIOR, {})})
    return _of_embeddings(whole, reading, size, asked, text, [draw], {PRIOR: prior.read})


def variations(whole: Index, reading: Reading, size: str | None, asked: Asked) -> Drawable:
    """Karlo without its prior: variations of a picture, "like", or of its "image_embedding"; a text may steer them.

    Arguments and errors as of `karlo`; `asked` has the options of "super_res".
    """
    staged.check_known(asked, ENLARGED)
    pictures = likes.of_folder(whole, reading)
    embedding: dict[str, Shape] = {unclip.IMAGE: (pictures.features,)}
    read = {unclip.TEXT: (pictures.features,), "tokens": (None, pictures.features), "token_mask": (None,)}
    text = staged.with_nulls(read)
    made = _of_embeddings(whole, reading, size, asked, text, [], {}, embedding)
    return made._replace(sample_condition=likes.telling(pictures, tuple(text), made.sample_condition))


def _of_embeddings(
    whole: Index,
    reading: Reading,
    size: str | None,
    asked: Asked,
    text: Mapping[str, Shape],
    before: Sequence[StageOf],
    held: Mapping[str, Hold],
    further: Mapping[str, Shape] = MappingProxyType({}),
) -> Drawable:
    """The decoder of a picture's embedding, and the networks that enlarge.

    Args:
      whole, reading, size, asked: as of `karlo`.
      text: the entries that a text is.
      before: the stages that give "image_embedding".
      held: their parameters.
      further: what is told in their place.
    """
    whole.check(PROJECTION, DECODER, FIRST, LAST, *SCHEDULERS.values())
    if size is not None:
        raise InputError(f"--size {size}: {whole.kind} draws pictures of one size; leave it out")
    parts = {name: denoisers.part(whole.root, name, SCHEDULERS[name], reading) for name in SCHEDULERS}
    decoder, enlarger = (
        denoisers.opened(part, reading, denoisers.size_of(None, part.config.get("sample_size")))
        for part in parts.values()
    )
    projection, last = (files.component(whole.root, reading.variant, folders=(name,)) for name in (PROJECTION, LAST))
    (project, read_project), (ending, read_ending) = (reading.network(found) for found in (projection, last))
    read: dict[str, Hold] = {
        **held,
        PROJECTION: read_project,
        DECODER: decoder.read,
        ENLARGED: lambda: {"first": enlarger.read(), "last": read_ending()},
    }

    long, extra = text["tokens"][0], project.model.extra
    tokens = None if long is None else extra + long
    made: dict[str, Shape] = {"tokens": (tokens, project.model.features), "token_mask": (tokens,)}
    made |= {unclip.VECTOR: (project.model.width,)}

    def say(params, *told):
        return project.model.apply({"params": params}, *told)

    needs = {unclip.IMAGE: project.example[0].shape[1:], **text}
    small = Link(
        DECODER, decoder.guided(GUIDANCE[DECODER], STEPS[DECODER]), staged.with_nulls(made), SMALL, decoder.shape
    )
    shape = enlarger.shape
    large = Link(ENLARGED, {"published": _enlarge(enlarger, ending)}, {BESIDE: shape}, IMAGE, shape)
    first = [*before, staged.gathered(unclip.projected(PROJECTION, say, needs, made))]
    after = [
        staged.always(unclip.shown("enlarge", resizing.bicubic, SMALL, decoder.shape, shape[:2])),
        large.asked(asked.get(ENLARGED, {})),
        staged.always(
            stages.arrays("clip", lambda cond: {IMAGE: jnp.clip(cond[IMAGE], -1, 1)}, {IMAGE: shape}, {IMAGE: shape})
        ),
    ]
    samplers = staged.around(first, small, after, {**text, **further}, IMAGE)
    return staged.drawable(whole, reading, text, samplers, read, shape, further=further)


def _restored(prior: Denoiser) -> dict[str, MakeSampler]:
    def restored(make: MakeSampler) -> MakeSampler:
        return lambda request: unclip.restoring(make(request), request.gather)

    return {name: restored(make) for name, make in prior.guided(GUIDANCE[PRIOR]).items()}


def _enlarge(first: Denoiser, last: Network) -> MakeSampler:
    """One chain, whose last step the second network makes. It has one sampler, that of the scheduler."""
    how = first.how

    def make(request: SampleRequest) -> SampleFn:
        asked = [
            flag for option, flag in OPTIONS.items() if option != "steps" and getattr(request, option) is not None
        ]
        if asked:
            raise InputError(f"the stage {ENLARGED} takes no {' and no '.join(asked)}; leave it out")
        steps = STEPS[ENLARGED] if request.steps is None else request.steps
        if steps < 2:
            raise InputError(f"the stage {ENLARGED} takes at least 2 steps, one of each of its networks; not {steps}")

        def turn(network: Network, count: int) -> Turn:
            beside = Beside(network.model)

            def apply(params, *inputs):
                return beside.apply({"params": {"network": request.gather(params)}}, *inputs)

            return Turn(apply, how.parameterization, count, (*how.own, how.variance))

        turns = {"first": turn(first.network, steps - 1), "last": turn(last, 1)}
        return in_turn(turns, how.process, how.sampler, how.grid(steps), request.batch, first.shape)

    return make
