"""What published networks are told beside the noise, how that guides them, and how what they draw is shown."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Guide, Hold, SampleCondition
from diffusion_jax.data import conditions, views
from diffusion_jax.data.views import View
from diffusion_jax.diffusion import guidance
from diffusion_jax.diffusion.few_step import guided
from diffusion_jax.diffusion.stages import NULL
from diffusion_jax.methods.compose import MakeGuide, unguided
from diffusion_jax.models.unets.beside import BESIDE, Beside
from diffusion_jax.models.unets.controlnet import Controlled
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pretrained import loading
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.published import Network
from diffusion_jax.pretrained.schedulers.scheduler import Sampling

OFFICIAL_DIT = 4.0  # the guidance of its own script
OFFICIAL_TEXT = 7.5  # of Stable Diffusion's pipeline
OFFICIAL_XL = 5.0  # of that of XL
OFFICIAL_LATENT = 8.5  # of latent consistency models' pipeline
TOKENS, TOKEN_MASK, POOLED, SIZES = "tokens", "token_mask", "pooled", "time_ids"
LOOKS = {"": 6.0, NULL: 2.5}  # how well pictures look, in the refiner's eyes: those that are wanted, and that are not


class Told(NamedTuple):
    """What a network is told.

    Attributes:
      condition: makes it of a person's wishes (`data.conditions`).
      guide: what is made of it.
      view: how what is drawn is shown.
      text: the entries that an encoder of texts gives, name -> shape of one example; of no other network.
    """

    condition: SampleCondition
    guide: MakeGuide
    view: View
    text: Mapping[str, tuple] = MappingProxyType({})


class Drawn(NamedTuple):
    """What is drawn.

    Attributes:
      shape: of one sample of the chain.
      pixels: height and width of the picture that it becomes.
      how: the noise.
      scored: whether its folder says that a network beside a pooled text is told how well pictures look, in place of
        the size that is wanted; None where it does not say.
    """

    shape: tuple[int, ...]
    pixels: tuple[int, int]
    how: Sampling
    scored: bool | None = None


def of_images(config: Mapping[str, Any], network: Network, drawn: Drawn) -> Told:
    """UNet2DModel: a label, or nothing."""
    classes = config.get("num_class_embeds")
    # Without a first stage beside them, 1 or 3 channels are pixels; anything else waits for a decoder.
    pictures = drawn.shape[-1] in (1, 3)
    view = views.pictures(drawn.how.darkest) if pictures else views.latents()
    return Told(conditions.labels(classes) if classes else conditions.nothing, unguided, view)


def of_dit(config: Mapping[str, Any], network: Network, drawn: Drawn) -> Told:
    """DiT: a label, which may be withheld."""
    classes, channels = config.get("num_embeds_ada_norm", 1000), drawn.shape[-1]

    def guide(guidance_scale: float = OFFICIAL_DIT) -> Guide:
        # As in the official script, the last channel of latents is not guided.
        kept = guidance.channels(guidance_scale, 3, channels) if channels > 3 else guidance_scale
        return guidance.classifier_free(guidance.replacing(label=classes), kept)

    return Told(conditions.labels(classes, null=classes), guide, views.latents())


def of_text(config: Mapping[str, Any], network: Network, drawn: Drawn) -> Told:
    """UNet2DConditionModel: an encoded text, and what withholds it; XL's sizes; a label, where it has labels."""
    takes = network.example[2]
    if guided.NAME in takes:
        return _of_text_and_scale(config, takes, drawn)
    told = {name: _shape(name, takes[name]) for name in (TOKENS, POOLED, SIZES) if name in takes}
    shapes = told | {NULL + name: shape for name, shape in told.items()}
    text = {name: shape for name, shape in shapes.items() if not name.endswith(SIZES)}
    wanted = _wanted({name: shape for name, shape in text.items() if not name.startswith(NULL)})
    missing = (
        f"this model is told an encoded text: --condition FILE.npz with {wanted}, and the same of the empty text "
        f"({', '.join(name for name in text if name.startswith(NULL))}) for its guidance"
    )
    texts = _sized(config, takes, drawn, given(missing, text, shapes, {}))

    def condition(num, given):
        (cond,) = texts(num, given)
        long, null = cond[TOKENS].shape[1], cond[NULL + TOKENS].shape[1]
        if long != null:
            raise InputError(f"tokens are {long} to a text and null_tokens {null}; give as many")
        return (cond,)

    usual = OFFICIAL_XL if POOLED in takes else OFFICIAL_TEXT
    return Told(_labelled(config, condition), by_nulls(drawn.how, usual), views.latents(), text)


def by_nulls(how: Sampling, usual: float = OFFICIAL_TEXT) -> MakeGuide:
    """Guidance away from the entries `null_NAME`, in place of NAME, of a condition; at scale 1 they are not used."""

    def guide(guidance_scale: float = usual, guidance_rescale: float = 0.0) -> Guide:
        return guidance.by_nulls(
            guidance_scale, how.rescaled(guidance_rescale) if guidance_rescale else guidance.as_it_is
        )

    return guide


def _of_text_and_scale(config: Mapping[str, Any], takes: Mapping[str, Any], drawn: Drawn) -> Told:
    """Of a latent consistency model, which is told the scale of guidance and has no unconditional half."""
    shapes = {name: _shape(name, takes[name]) for name in (TOKENS, POOLED, SIZES) if name in takes}
    text = {name: shape for name, shape in shapes.items() if name != SIZES}
    missing = f"this model is told an encoded text: --condition FILE.npz with {_wanted(text)}"
    texts = _sized(config, takes, drawn, given(missing, text, shapes, {}))

    def guide(guidance_scale: float = OFFICIAL_LATENT) -> Guide:
        return guided.at_scale(guidance_scale)

    return Told(_labelled(config, texts), guide, views.latents(), text)


def given(
    missing: str, text: Mapping[str, tuple], shapes: Mapping[str, tuple], usual: Mapping[str, np.ndarray]
) -> SampleCondition:
    """The condition of a network of texts.

    Args:
      missing: the message where a person gives no text.
      text: the entries that a text is, which must be given.
      shapes: of all entries of one example.
      usual: of the others, [1, ...], where nobody gives them.
    """

    def refuse(num):
        raise InputError(missing)

    masks = [name for name in shapes if name.endswith(TOKEN_MASK)]
    arrays = conditions.arrays(refuse, masks, **shapes)

    def condition(num, wished):
        return arrays(num, {**usual, **wished} if set(text) <= set(wished) else wished)

    return condition


def _wanted(shapes: Mapping[str, tuple]) -> str:
    any_size = {POOLED: "P"}
    sizes = {
        name: ", ".join(any_size.get(name, "L") if size is None else str(size) for size in shape)
        for name, shape in shapes.items()
    }
    return " and ".join(f"{name}, float [N, {size}]" for name, size in sizes.items())


def _shape(name: str, example: Any) -> tuple[int | None, ...]:
    """Of one example: a sequence may be of any length, as may a pooled text and the sizes beside it (`_sized`)."""
    shape = example.shape[1:]
    return (None, *shape[1:]) if len(shape) == 2 or name in (POOLED, SIZES) else shape


def sizes_beside(config: Mapping[str, Any], features: int, scored: bool | None, name: str = POOLED) -> int:
    """How many numbers of a picture's size fit beside a pooled text of so many features: six, or five of the refiner.

    Args:
      config: the network's.
      features: of the text.
      scored: as of `Drawn`.
      name: of the text, for messages.

    Raises:
      InputError: neither fits, or other than the folder says.
    """
    room, width = config["projection_class_embeddings_input_dim"], config["addition_time_embed_dim"]
    fitting = {room - count * width: count for count in (5, 6)}
    if features not in fitting:
        wanted = " or ".join(map(str, fitting))
        raise InputError(f"{name} has {features} features; this network is told {wanted}")
    count = fitting[features]
    if scored is not None and scored != (count == 5):
        raise InputError(
            f"requires_aesthetics_score = {str(scored).lower()} of model_index.json asks for {5 if scored else 6} "
            f"numbers beside the text, and the U-Net, with {name} of {features} features, has room for {count}; "
            f"make it {str(not scored).lower()}"
        )
    return count


def _sized(
    config: Mapping[str, Any], takes: Mapping[str, Any], drawn: Drawn, rest: SampleCondition
) -> SampleCondition:
    """`rest`, with XL's numbers of a picture's size where nobody gives them: as many as fit beside the pooled text.

    Six are those of a picture that is neither cut nor enlarged. Five, of the refiner, end on how well pictures look.
    """
    if POOLED not in takes:
        return rest
    pixels = drawn.pixels

    def condition(num, given):
        given = dict(given)
        for null in ("", NULL):
            if np.ndim(given.get(null + POOLED, 0)) != 2:
                continue  # `rest` refuses that
            count = sizes_beside(config, np.shape(given[null + POOLED])[-1], drawn.scored, null + POOLED)
            usual = np.array([(*pixels, 0, 0, *(pixels if count == 6 else (LOOKS[null],)))], np.float32)
            # A picture's size is no wish, and is told where the text is withheld.
            sizes = given.setdefault(null + SIZES, given.get(SIZES, usual) if count == 6 else usual)
            if np.ndim(sizes) == 2 and np.shape(sizes)[-1] != count:
                raise InputError(f"{null}{SIZES} has {np.shape(sizes)[-1]} numbers; beside this text go {count}")
        return rest(num, given)

    return condition


def _labelled(config: Mapping, rest: SampleCondition) -> SampleCondition:
    classes = config.get("num_class_embeds")
    return conditions.joined(label=conditions.labels(classes), rest=rest) if classes else rest


# ---- Networks with others around them: the module, how it is read, and what it is told.


def beside(model: Any, read: Callable[[], Any], told: Told, shape: tuple[int, ...]) -> tuple:
    """A network that is shown more channels than it says: those, of `shape`."""

    def missing(num):
        raise InputError(
            f"this network sees {shape[-1]} channels beside the noisy ones, of a mask and a masked image say: "
            f"--condition FILE.npz with beside, float [N, {', '.join(map(str, shape))}]"
        )

    combined = conditions.joined(**{BESIDE: conditions.arrays(missing, (), **{BESIDE: shape})}, rest=told.condition)
    return Beside(model), lambda: {"network": read()}, told._replace(condition=combined)


def controlled(
    network: Network, read: Hold, name: str, reading: Reading, told: Told, shape: tuple[int, ...]
) -> tuple:
    """A network, whose parameters `read` reads, with the ControlNet of the folder `name`."""
    steering = files.component(name, reading.variant)
    if steering.config.get("_class_name") != "ControlNetModel":
        raise InputError(f"--controlnet {name} is a {str(steering.config.get('_class_name'))[:60]!r}, no ControlNet")
    other = loading.build(steering.config, steering.weights)
    hint = other.model.hint.clone(dtype=reading.computed)
    factor = 2 ** (len(hint.channels) - 1)
    wanted = (shape[0] * factor, shape[1] * factor, other.example[2]["hint"].shape[-1])

    def missing(num):
        raise InputError(
            f"a ControlNet is told a hint: --hint PICTURE, or --condition FILE.npz with hint, float [N, {wanted}]"
        )

    def both():
        return {"unet": read(), "control": other.read(steering.weights, reading.dtype)}

    combined = conditions.joined(hint=conditions.arrays(missing, hint=wanted), rest=told.condition)
    # A U-Net, or it has no ControlNet.
    model = Controlled(network.model, hint)  # type: ignore[arg-type]
    return model, both, told._replace(condition=combined)
