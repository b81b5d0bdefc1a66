"""Published models, to draw from: their networks, their weights, and the noise and sampler that their files name.

OpenAI's are composed in `pipelines.openai`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Grid, Guide, SampleCondition
from diffusion_jax.data import conditions, views
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers, timesteps, variances
from diffusion_jax.diffusion.few_step import guided
from diffusion_jax.methods import edits, improved
from diffusion_jax.methods.compose import Chain, MakeChain, MakeGuide, MoreChains, drawn_by, nothing_more, unguided
from diffusion_jax.models.unets.beside import Beside
from diffusion_jax.models.unets.controlnet import Controlled
from diffusion_jax.pipelines import first_stages
from diffusion_jax.pipelines.first_stages import Decoder
from diffusion_jax.pipelines.openai import openai
from diffusion_jax.pretrained import loading
from diffusion_jax.pretrained.first_stages import CLASSES
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.published import Network
from diffusion_jax.pretrained.schedulers.scheduler import Sampling, sampling
from diffusion_jax.training.experiment import Drawable, MakeSampler

__all__ = ["diffusers", "openai"]

NARROWEST = 1e-20  # of a learned variance, which these samplers do not ask for
OFFICIAL_DIT = 4.0  # the guidance of its own script

EDITS = {"CMStochasticIterativeScheduler": edits.projected}  # of others `edits.replaced`
OFFICIAL_LATENT = 8.5  # of latent consistency models' pipeline
# Of any scheduler's config: its table, and what else is not its solver's own.
BETAS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
BESIDE = (
    *("trained_betas", "prediction_type", "rescale_betas_zero_snr", "timestep_spacing", "steps_offset"),
    *("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
)


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
    kinds = {
        "UNet2DModel": _image,
        "UNet2DConditionModel": _text,
        "DiTTransformer2DModel": _dit,
        "Transformer2DModel": _dit,
    }
    if kind not in kinds:
        raise InputError(f"{name} is a {kind[:60]!r}; of use are {', '.join(kinds)}")
    network = loading.build(component.config, component.weights)
    decoder = first_stages.beside(name, variant, first_stage, tile)
    height, width = _size(size, component.config.get("sample_size"), decoder)
    given, said = network.example[0].shape[-1], _channels_said(network, height, width)
    shape = (height, width, min(given, said))
    scheduler, how = _noise(component.scheduler, sampler)
    _check_told(component.config, scheduler)
    sample_condition, guide, view = kinds[kind](component.config, network, shape[-1], how.darkest)
    how = _with_variance(how, said, shape[-1], scheduler)
    model, read = network.model, lambda: network.read(component.weights)
    if controlnet is not None and given > said:
        raise InputError(f"a ControlNet for a network that sees {given} channels and says {said} is not known")
    if controlnet is not None and guided.NAME in (network.example[2] or {}):
        raise InputError("a ControlNet for a network that is told the scale of guidance is not known")
    if given > said:
        model, read, sample_condition = _beside(model, read, sample_condition, (height, width, given - said))
    if controlnet is not None:
        model, read, sample_condition = _controlled(network, component, controlnet, variant, sample_condition, shape)

    drawn = _samplers(model, how, guide, shape, scheduler, more, doubled=said > shape[-1])
    about = f"published {kind} of {name}"
    if scheduler is not component.scheduler:
        del drawn["published"]
        about += f", whose {str(component.scheduler.get('_class_name'))[:60]} is not used"

    def load():
        return read(), about, lambda sampler: Path("samples") / Path(name).name / sampler

    known = EDITS.get(scheduler["_class_name"], edits.replaced)
    made = {**known(how.process), **edits.between(how.schedule)}
    drawable = Drawable(drawn, sample_condition, view, load, shape, made)
    return drawable if decoder is None else first_stages.decoding(decoder, drawable)


# ---- What is told, how it guides, and how it is shown, by the kind of network.


def _image(config: Mapping, network: Network, channels: int, darkest: float) -> tuple:
    classes = config.get("num_class_embeds")
    sample_condition = conditions.labels(classes) if classes else conditions.nothing
    # Without a first stage beside them, 1 or 3 channels are pixels; anything else waits for a decoder.
    view = views.pictures(darkest) if channels in (1, 3) else views.latents()
    return sample_condition, unguided, view


def _dit(config: Mapping, network: Network, channels: int, darkest: float) -> tuple:
    classes = config.get("num_embeds_ada_norm", 1000)

    def guide(guidance_scale: float = OFFICIAL_DIT) -> Guide:
        # As in the official script, the last channel of latents is not guided.
        kept = guidance.channels(guidance_scale, 3, channels) if channels > 3 else guidance_scale
        return guidance.classifier_free(guidance.replacing(label=classes), kept)

    return conditions.labels(classes, null=classes), guide, views.latents()


def _text(config: Mapping, network: Network, channels: int, darkest: float) -> tuple:
    features = network.example[2]["tokens"].shape[-1]
    if guided.NAME in network.example[2]:
        return _text_and_scale(config, features)

    def missing(num):
        raise InputError(
            f"this model is told an encoded text: --condition FILE.npz with tokens, float [N, L, {features}], and "
            "null_tokens of the same shape, of the empty text, for its guidance"
        )

    def guide(guidance_scale: float = 7.5) -> Guide:
        def guided(denoise, cond):
            conditional, null = {**cond}, cond["null_tokens"]
            del conditional["null_tokens"]
            return guidance.classifier_free(guidance.replacing(tokens=null), guidance_scale)(denoise, conditional)

        return guided

    texts = conditions.arrays(missing, tokens=(None, features), null_tokens=(None, features))

    def sample_condition(num, given):
        (cond,) = texts(num, given)
        long, null = cond["tokens"].shape[1], cond["null_tokens"].shape[1]
        if long != null:
            raise InputError(f"tokens are {long} to a text and null_tokens {null}; give as many")
        return (cond,)

    return _labelled(config, sample_condition), guide, views.latents()


def _text_and_scale(config: Mapping, features: int) -> tuple:
    """Of a latent consistency model, which is told the scale of guidance and has no unconditional half."""

    def missing(num):
        raise InputError(
            f"this model is told an encoded text: --condition FILE.npz with tokens, float [N, L, {features}]"
        )

    def guide(guidance_scale: float = OFFICIAL_LATENT) -> Guide:
        return guided.at_scale(guidance_scale)

    return _labelled(config, conditions.arrays(missing, tokens=(None, features))), guide, views.latents()


def _labelled(config: Mapping, rest: SampleCondition) -> SampleCondition:
    classes = config.get("num_class_embeds")
    return conditions.joined(label=conditions.labels(classes), rest=rest) if classes else rest


def _beside(model, read: Callable[[], Any], sample_condition: SampleCondition, shape: tuple[int, int, int]) -> tuple:
    """A network that is shown more channels than it says, how to read it, and what it is told: those, of `shape`."""

    def missing(num):
        raise InputError(
            f"this network sees {shape[-1]} channels beside the noisy ones, of a mask and a masked image say: "
            f"--condition FILE.npz with beside, float [N, {', '.join(map(str, shape))}]"
        )

    combined = conditions.joined(beside=conditions.arrays(missing, beside=shape), rest=sample_condition)
    return Beside(model), lambda: {"network": read()}, combined


def _controlled(
    network: Network, component, name: str, variant: str, sample_condition: SampleCondition, shape
) -> tuple:
    """The network with a ControlNet, how to read both, and what they are told."""
    steering = files.component(name, variant)
    if steering.config.get("_class_name") != "ControlNetModel":
        raise InputError(f"--controlnet {name} is a {str(steering.config.get('_class_name'))[:60]!r}, no ControlNet")
    other = loading.build(steering.config, steering.weights)
    hint = other.model.hint
    factor = 2 ** (len(hint.channels) - 1)
    wanted = (shape[0] * factor, shape[1] * factor, other.example[2]["hint"].shape[-1])

    def missing(num):
        raise InputError(f"a ControlNet is told a hint: --condition FILE.npz with hint, float [N, {wanted}]")

    def read():
        return {"unet": network.read(component.weights), "control": other.read(steering.weights)}

    combined = conditions.joined(hint=conditions.arrays(missing, hint=wanted), rest=sample_condition)
    return Controlled(network.model, hint), read, combined  # type: ignore[arg-type]  # a U-Net, or it has no ControlNet


# ---- How it is drawn.


def _noise(config: Mapping, sampler: str | None) -> tuple[Mapping, Sampling]:
    """A scheduler's config and its parts; for another sampler, the table alone of one that is not known."""
    try:
        return config, sampling(config)
    except InputError as error:
        if not set(BETAS) <= set(config) or config.get("use_flow_sigmas"):
            raise
        if sampler in (None, "published"):
            raise InputError(f"{error}; or give --sampler ddim, to which its table of betas is enough") from error
    table = {"_class_name": "DDIMScheduler", "clip_sample": False}
    table |= {name: config[name] for name in (*BETAS, *BESIDE) if name in config}
    return table, sampling(table)


def _check_told(config: Mapping, scheduler: Mapping):
    """`InputError` for a network that is told noise levels beside a scheduler that tells steps."""
    kind = scheduler["_class_name"]
    if config.get("time_embedding_type") == "fourier" and kind != "ScoreSdeVeScheduler":
        raise InputError(
            f"this network is told noise levels (time_embedding_type = 'fourier'), and {kind} tells steps; "
            "a ScoreSdeVeScheduler tells levels, and pretrained.load reads the network alone"
        )


def _samplers(
    model, how: Sampling, guide: MakeGuide, shape, scheduler: Mapping, more: MoreChains, doubled: bool
) -> dict[str, MakeSampler]:
    """The scheduler's own sampler first, and others on the same noise; `doubled` if the network says a variance."""
    num = scheduler.get("num_train_timesteps", 1000)
    single = scheduler["_class_name"] == "CMStochasticIterativeScheduler"
    usually = {"DDPMScheduler": num, "ScoreSdeVeScheduler": num, "LCMScheduler": 4}
    usual = scheduler.get("steps", usually.get(scheduler["_class_name"], 1 if single else 50))

    def apply(params, *inputs):
        return model.apply({"params": params}, *inputs)

    # Only DDPM's own scheduler knows of variances; where a network learned one, ancestral steps take that.
    certain = variances.posterior(how.schedule)
    own = how.variance if scheduler["_class_name"] == "DDPMScheduler" else certain

    def grid(steps: int | None, usual: int) -> np.ndarray:
        return _grid_up_to(usual, how.grid) if steps is None else how.grid(steps)

    def published(steps: int | None = None) -> Chain:
        return Chain(how.sampler, grid(steps, usual), (*how.own, own))

    def ddim(steps: int | None = None, eta: float = 0.0) -> Chain:
        # As diffusers' pipelines have it, a bound of x0 leaves the noise alone.
        return Chain(samplers.ddim(how.schedule, eta, *how.transforms), grid(steps, min(50, num)), (certain,))

    def dpmpp_2m(steps: int | None = None) -> Chain:
        return Chain(samplers.dpmpp_2m(how.schedule), grid(steps, min(20, num)), (*how.transforms, certain))

    def ancestral(steps: int | None = None) -> Chain:
        sampler = samplers.ancestral(processes.gaussian(how.schedule))
        return Chain(sampler, grid(steps, num), (*how.transforms, how.variance))

    def plms(steps: int | None = None) -> Chain:
        return Chain(samplers.plms(how.schedule), grid(steps, min(50, num)), (*how.transforms, certain))

    chains: dict[str, MakeChain] = {"published": published}
    if not single:
        chains |= {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "ancestral": ancestral}
        if how.schedule.alpha(grid(None, usual)[0]) > 0:
            # Elsewhere, as of a flow, nothing is left of the data where its chain starts.
            chains |= {"plms": plms}
    chains |= more(how)
    others = {} if single or how.anywhere is None else _between(guide, apply, how, shape, doubled)
    return drawn_by(chains, apply, how.parameterization, how.process, shape, guide) | others


def _between(guide: MakeGuide, apply: Apply, how: Sampling, shape, doubled: bool) -> dict[str, MakeSampler]:
    """k-diffusion's samplers that look between the entries of a table."""
    assert how.anywhere is not None
    schedule, parameterization, last = how.anywhere
    if doubled:
        parameterization = parameterizations.learned_range(parameterization, schedule, NARROWEST)
    transforms, usual = (*how.transforms, variances.posterior(how.schedule)), min(20, round(1 / last))

    def levels(steps: int) -> np.ndarray:
        return timesteps.log_snr(schedule, steps, last=last)

    def dpmpp_sde(steps: int | None = None) -> Chain:
        times = _grid_up_to(usual, how.grid) if steps is None else how.grid(steps)
        return Chain(samplers.dpmpp_sde(schedule), times, transforms)

    def dpm_fast(steps: int = 30) -> Chain:
        # As many looks as steps are asked for, the last of them in the step to 0.
        return Chain(samplers.dpm_fast(schedule, steps - 1), levels((steps - 1) // 3 + 2), transforms)

    def dpm_adaptive(steps: int = 2) -> Chain:
        # Its steps are its own: these are where it stops, for a film to look.
        return Chain(samplers.dpm_adaptive(schedule), levels(steps), transforms)

    chains = {"dpmpp_sde": dpmpp_sde, "dpm_fast": dpm_fast, "dpm_adaptive": dpm_adaptive}
    return drawn_by(chains, apply, parameterization, how.process, shape, guide)


def _grid_up_to(most: int, grid: Grid) -> np.ndarray:
    """The grid of as many steps up to `most` as it takes: not all tables and spacings take any number."""
    for steps in range(most, 1, -1):
        try:
            return grid(steps)
        except InputError:
            continue
    return grid(1)


def _channels_said(network: Network, height: int, width: int) -> int:
    """Channels of its output; images of a size that it cannot take are refused here, before anything is read."""
    x = jax.ShapeDtypeStruct((1, height, width, network.example[0].shape[-1]), np.float32)
    said = jax.eval_shape(network.model.apply, {"params": network.template()}, x, *network.example[1:])
    return said.shape[-1]


def _with_variance(how: Sampling, said: int, channels: int, scheduler: Mapping) -> Sampling:
    """`how`, for networks that say a variance of which their scheduler does not know, as DiT's."""
    if said == channels or scheduler.get("variance_type") == "learned_range":
        return how
    if said != 2 * channels or scheduler.get("prediction_type", "epsilon") != "epsilon":
        raise InputError(f"a network that says {said} channels of {channels} is not known")
    _, learned = improved.parameterizations_of(how.schedule, scheduler.get("num_train_timesteps", 1000))
    return how._replace(parameterization=learned)


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
