"""unCLIP (Ramesh et al. 2022): a prior makes the embedding of a picture from a text, a decoder the picture from it.

Both learn what a CLIP says of pictures and texts, which their runs hold. The prior's run also holds the decoder and
the super-resolution after it: its samples are pictures of a text. Embeddings are unit vectors times the root of their
length, so of entries of about unit size. Those that the prior is of are standardised, feature by feature.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold, Network, Tree
from diffusion_jax.data import captions, conditions
from diffusion_jax.diffusion import parameterizations, schedules, stages
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.unclip import IMAGE, TEXT
from diffusion_jax.methods import captioned, clip, continuous, guided, runs, staged, super_resolution
from diffusion_jax.methods.autoencoders.opened import digest
from diffusion_jax.methods.compose import Data, Method
from diffusion_jax.methods.ddpm import CLIPPED
from diffusion_jax.methods.staged import Pipeline
from diffusion_jax.methods.text_to_image import unclip_parts
from diffusion_jax.methods.text_to_image.readers import MASK, TOKENS, Clip, Reader, of_unit_entries
from diffusion_jax.methods.text_to_image.unclip_parts import DECODER, ENCODER, SCALING
from diffusion_jax.models.blocks.conditioning import OptionalVectorEmbedding
from diffusion_jax.models.encoders.clip import CLIP
from diffusion_jax.models.transformers.prior import PriorTransformer
from diffusion_jax.pretrained.tokenizers import Tokenizer, Tokens
from diffusion_jax.training import held
from diffusion_jax.training.experiment import Experiment, SampleRequest

UPPER = "super_resolution"  # a stage
UNTOLD = {TEXT: jnp.nan}  # what stands for no text
SCHEDULE = schedules.cosine()
LENGTH = captions.WORDS.length


# ---- Values.


def _config(shape: tuple[int, int, int]) -> Config:
    config = captioned.config_mnist(shape)
    config.clip = clip.sizes()
    config.clip.run = values.text("", "work directory of the CLIP (configs/clip.py)")
    return config


def config_decoder() -> Config:
    """Values of a decoder that makes digits of 8x8 pixels from the embeddings of pictures of 32x32."""
    config = _config((32, 32, 1))
    config.low = Config(size=values.listed((8, 8), "height and width of its pictures", values.Whole(1, 4096), 2, 2))
    config.model = captioned.perceptron_values(192, 5)
    config.decoder = Config(
        withheld=values.share(0.1, "share of examples that are not told the picture's embedding"),
        withheld_text=values.share(0.5, "share of examples that are not told the text"),
        guidance=values.number(1.0, "guidance where none is asked for; 1 is as learned", -1000, 1000),
    )
    config.train.steps = 2500
    config.train.decay_steps = 2400
    return config


def config_prior() -> Config:
    """Values of a prior over the embeddings of such pictures, and of what makes pictures of its samples."""
    config = _config((32, 32, 1))
    config.prior = Config(
        features=values.count(64, "features of the prior's rows, even, a multiple of heads", 65_536),
        layers=values.count(3, "blocks of the prior", 256),
        heads=values.count(4, "heads of attention", 1024),
        draws=values.count(2, "samples of the prior of which the nearest to the text stays", 1024),
        **guided.guidance_values("text", usual=1.0),  # type: ignore[arg-type]  # ConfigDict's own keywords come first
    )
    config.decoder = config_decoder().model
    config.decoder.run = values.text("", "work directory of the decoder (configs/unclip_decoder.py)")
    config.decoder.guidance = values.number(1.25, "guidance of its chain; 1 is as learned", -1000, 1000)
    config.decoder.steps = values.count(25, "steps of its chain", 100_000)
    upper = super_resolution.config_mnist()
    config.low = upper.low
    config.low.level = 0.0
    config.upper = upper.model
    config.upper.shape = values.listed(
        (32, 32, 1), "height, width and channels of its pictures", values.Whole(1, 4096), 3, 3
    )
    config.upper.run = values.text("", "work directory of the super-resolution (configs/super_resolution.py)")
    config.upper.steps = values.count(25, "steps of its chain", 100_000)
    # With a thirteenth of these examples samples of a text had less than half the variance of its pictures.
    config.train.batch_size = 256
    config.train.steps = 5000
    config.train.decay_steps = 4900
    config.train.ema_decay = 0.995
    return config


# ---- What CLIP says.


def small_clip(config: ConfigDict, shape: tuple[int, int, int]) -> Clip:
    """The CLIP of configs/clip.py, of pictures of `shape` and the captions of `data.captions`."""
    model = clip.network(config.clip, shape)

    def says(params, ids, mask):
        text: Any = model.text.apply({"params": params["text"]}, ids, mask)
        return {TOKENS: text.final, TEXT: of_unit_entries(text.pooled), MASK: mask}

    def seen(params, image):
        picture: Any = model.vision.apply({"params": params["vision"]}, image)
        return of_unit_entries(picture.embedding)

    def read():
        template = clip_template(model, shape)
        return params_of(config.clip.run, "--config.clip.run", "CLIP", "clip", template)

    size = config.clip.embedding
    told = {
        TEXT: jax.ShapeDtypeStruct((size,), jnp.float32),
        TOKENS: jax.ShapeDtypeStruct((LENGTH, config.clip.features), jnp.float32),
        MASK: jax.ShapeDtypeStruct((LENGTH,), jnp.bool_),
    }
    words = captions.WORDS
    tokenizer = Tokenizer(lambda texts: Tokens(*words.encode(texts)), lambda text: "", LENGTH, words.size)
    return Clip(Reader(tokenizer, says, told, read), seen, size)


# ---- The decoder.


def decoder_network(model: ConfigDict, shape: tuple[int, int, int]) -> Network:
    """A decoder of pictures of `shape`, a perceptron of the values of `captioned.perceptron_values`."""
    return captioned.perceptron(model, shape, {name: OptionalVectorEmbedding() for name in (IMAGE, TEXT)})


def decoder_method(
    data: Data, network: Network, withheld: float = 0.1, withheld_text: float = 0.5, usual: float = 1.0
) -> Method:
    """Diffusion of pictures of the size `data.shape`, told two embeddings (`unclip_parts.told_apart`)."""
    plain = continuous.model_of(data, network, SCHEDULE, continuous.says_x0, CLIPPED)
    return unclip_parts.told_apart(plain, UNTOLD, withheld, withheld_text, usual)


def decoder(config: ConfigDict) -> Experiment:
    """A decoder of embeddings as an experiment, with the values of `config_decoder` (`unclip_parts.decoder`)."""
    shape, low = tuple(config.data.shape), (*config.low.size, config.data.shape[-1])
    own = small_clip(config, shape)
    images = captioned.data(shape, captioned.mnist(config.data.dir))
    section = config.decoder
    method = decoder_method(
        images._replace(shape=low),
        decoder_network(config.model, low),
        section.withheld,
        section.withheld_text,
        section.guidance,
    )
    return unclip_parts.decoder(config, own, cache(lambda: {ENCODER: own.reader.read()}), images, method, UNTOLD)


# ---- The prior, and everything after it.


def prior(config: ConfigDict) -> Experiment:
    """A prior over embeddings as an experiment, with the values of `config_prior`: its samples are pictures of texts.

    A text is encoded; of several draws of the prior the one nearest to the text stays; the decoder makes a small
    picture of it, told the text as well, and super-resolution enlarges that.
    """
    pipeline, method = prior_pipeline(config)
    return staged.compose(config, pipeline, method)


def prior_pipeline(config: ConfigDict) -> tuple[Pipeline, Method]:
    """The parts of `prior`."""
    shape = tuple(config.data.shape)
    low = (*config.low.size, shape[-1])
    own = small_clip(config, shape)
    images = captioned.data(shape, captioned.mnist(config.data.dir))
    # Methods of the two runs, for their networks and chains alone: nothing is read of their data.
    small = decoder_method(images._replace(shape=low), decoder_network(config.decoder, low))
    pictures = tuple(config.upper.shape)
    sizes = SimpleNamespace(model=config.upper, data=SimpleNamespace(shape=pictures))
    large = super_resolution.mnist(sizes, images._replace(shape=pictures))
    level, steps, upper_steps = config.low.level, config.decoder.steps, config.upper.steps
    guided_by = config.decoder.guidance
    vector = (own.size,)

    def after(request):
        asked = SampleRequest(request.batch, steps, gather=request.gather)
        decode = staged.chains(small)["ddim"](asked._replace(guidance_scale=guided_by))
        enlarge = super_resolution.spoiling(staged.chains(large)["ddim"])(asked._replace(steps=upper_steps))
        return (
            stages.chain(DECODER, decode, {IMAGE: vector, TEXT: vector}, LOW, low),
            stages.arrays("level", lambda cond: {LEVEL: jnp.full(len(cond[LOW]), level)}, {LOW: low}, {LEVEL: ()}),
            stages.chain(UPPER, enlarge, {LOW: low, LEVEL: ()}, "image", pictures),
        )

    network = PriorTransformer(LENGTH, config.prior.features, config.prior.layers, config.prior.heads)
    data = images._replace(sample_condition=conditions.prompts(captions.WORDS.encode, captions.ALL))
    # As small a network that says x0 loses much of an embedding even where there is hardly any noise.
    says = parameterizations.v
    method = unclip_parts.prior(data, own, network, config.prior.withheld, config.prior.guidance, says)
    hold = _held_of(config, own, images, small, large)
    return unclip_parts.prior_pipeline(own, hold, config.prior.draws, after, "image"), method


def _held_of(config: ConfigDict, own: Clip, images: Data, small: Method, large: Method) -> Hold:
    """`() -> {"clip", "scaling", "decoder", "super_resolution"}`, of the runs that the config names."""
    size = own.size
    decoder_run, upper_run = config.decoder.run, config.upper.run

    @cache
    def hold():
        encoder = own.reader.read()
        told = {name: jnp.zeros((1, size)) for name in (IMAGE, TEXT)}
        low = {LOW: jnp.zeros((1, *small.data.shape)), LEVEL: jnp.zeros(1)}
        decoder = params_of(
            decoder_run, "--config.decoder.run", "decoder", "decoder", template_of(small, told), encoder
        )
        upper = params_of(upper_run, "--config.upper.run", "super-resolution", "upper", template_of(large, low))
        scaling = unclip_parts.statistics(own, encoder, images)
        return {ENCODER: encoder, SCALING: scaling, DECODER: decoder, UPPER: upper}

    return hold


def clip_template(model: CLIP, shape: tuple[int, int, int]) -> Tree:
    """The shapes of a CLIP's parameters."""
    ids = jnp.zeros((1, LENGTH), jnp.int32)
    return jax.eval_shape(model.init, rng.root(0), ids, jnp.zeros((1, *shape)), ids > 0)["params"]


def template_of(method: Method, cond: Mapping[str, jax.Array]) -> Tree:
    """The shapes of the parameters of a method's network, told arrays such as `cond`."""
    x = jnp.zeros((1, *method.data.shape))
    return jax.eval_shape(method.model.init, rng.root(0), x, jnp.zeros(1), cond)["params"]


def params_of(folder: str, flag: str, what: str, section: str, template: Tree, encoder: Tree | None = None) -> Tree:
    """The averaged parameters of the run in `folder`, of the shapes of `template`.

    Args:
      folder: its work directory.
      flag: the option that names it.
      what: what it should hold, in words.
      section: of the config, with the values of its network.
      template: the shapes that are wanted.
      encoder: the CLIP that it must have been trained with; None where it holds none.

    Raises:
      InputError: there is no such run, its network is another, or it was told of another CLIP.
    """
    run = runs.opened(folder, flag, what)
    params = run.read()
    runs.check_alike(params, template, folder, section)
    if encoder is not None:
        known = held.load(Path(folder), run.experiment.task.held)
        if ENCODER not in known or digest(known[ENCODER]) != digest(encoder):
            raise InputError(f"the {what} in {folder} learned from another CLIP; train both with the same one")
    return params
