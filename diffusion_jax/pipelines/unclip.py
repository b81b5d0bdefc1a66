"""unCLIP's pipelines: Karlo's, from a text to a picture by a prior, a decoder and two networks that enlarge."""

import jax.numpy as jnp

from diffusion_jax.core import resizing
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import SampleFn
from diffusion_jax.diffusion import stages, unclip
from diffusion_jax.diffusion.samplers import Turn, in_turn
from diffusion_jax.diffusion.stages import Shape
from diffusion_jax.models.unets.beside import BESIDE, Beside
from diffusion_jax.pipelines import denoisers, staged, told
from diffusion_jax.pipelines.denoisers import Denoiser
from diffusion_jax.pipelines.index import Index
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pipelines.staged import Asked, Link
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.published import Network
from diffusion_jax.training.experiment import OPTIONS, Drawable, MakeSampler, SampleRequest

PRIOR, PROJECTION, DECODER, FIRST, LAST = "prior", "text_proj", "decoder", "super_res_first", "super_res_last"
SCHEDULERS = {PRIOR: "prior_scheduler", DECODER: "decoder_scheduler", FIRST: "super_res_scheduler"}
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
    whole.check(PRIOR, PROJECTION, DECODER, FIRST, LAST, *SCHEDULERS.values())
    if size is not None:
        raise InputError(f"--size {size}: {whole.kind} draws pictures of one size; leave it out")
    staged.check_known(asked, PRIOR, ENLARGED)
    parts = {name: denoisers.part(whole.root, name, SCHEDULERS[name], reading) for name in SCHEDULERS}
    prior = denoisers.opened(parts[PRIOR], reading, ())
    decoder, enlarger = (
        denoisers.opened(parts[name], reading, denoisers.size_of(None, parts[name].config.get("sample_size")))
        for name in (DECODER, FIRST)
    )
    projection, last = (files.component(whole.root, reading.variant, folders=(name,)) for name in (PROJECTION, LAST))
    (project, read_project), (ending, read_ending) = (reading.network(found) for found in (projection, last))
    read = {
        PRIOR: prior.read,
        PROJECTION: read_project,
        DECODER: decoder.read,
        ENLARGED: lambda: {"first": enlarger.read(), "last": read_ending()},
    }

    text = staged.with_nulls(staged.heard(prior.network))
    tokens, _ = text["tokens"]
    made: dict[str, Shape] = {"tokens": (project.model.extra + tokens, project.model.features)}
    made |= {"token_mask": (project.model.extra + tokens,), unclip.VECTOR: (project.model.width,)}

    def say(params, *told):
        return project.model.apply({"params": params}, *told)

    embedding = Link(PRIOR, _restored(prior), text, unclip.IMAGE, prior.shape)
    small = Link(DECODER, _guided(decoder, DECODER), staged.with_nulls(made), SMALL, decoder.shape)
    shape = enlarger.shape
    large = Link(ENLARGED, {"published": _enlarge(enlarger, ending)}, {BESIDE: shape}, IMAGE, shape)
    before = [
        embedding.asked({"steps": STEPS[PRIOR], **asked.get(PRIOR, {})}),
        staged.gathered(unclip.projected(PROJECTION, say, {unclip.IMAGE: prior.shape, **text}, made)),
    ]
    after = [
        staged.always(unclip.shown("enlarge", resizing.bicubic, SMALL, decoder.shape, shape[:2])),
        large.asked(asked.get(ENLARGED, {})),
        staged.always(
            stages.arrays("clip", lambda cond: {IMAGE: jnp.clip(cond[IMAGE], -1, 1)}, {IMAGE: shape}, {IMAGE: shape})
        ),
    ]
    return staged.drawable(whole, reading, text, staged.around(before, small, after, text, IMAGE), read, shape)


def _guided(denoiser: Denoiser, name: str) -> dict[str, MakeSampler]:
    """Its samplers, by the guidance and in the steps of the published pipeline."""
    usual = denoiser._replace(scheduler={**denoiser.scheduler, "steps": STEPS[name]})
    return usual.samplers(told.by_nulls(denoiser.how, GUIDANCE[name]))


def _restored(prior: Denoiser) -> dict[str, MakeSampler]:
    def restored(make: MakeSampler) -> MakeSampler:
        return lambda request: unclip.restoring(make(request), request.gather)

    return {name: restored(make) for name, make in _guided(prior, PRIOR).items()}


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
