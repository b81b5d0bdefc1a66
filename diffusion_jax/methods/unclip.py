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
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import resizing, rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold, Network, Tree
from diffusion_jax.data import captions, conditions
from diffusion_jax.diffusion import guidance, losses, parameterizations, schedules, stages
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.methods import captioned, clip, continuous, guided, pixels, runs, staged, super_resolution
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.methods.autoencoders.opened import digest
from diffusion_jax.methods.compose import Data, Method, base_config, with_dir
from diffusion_jax.methods.ddpm import CLIPPED
from diffusion_jax.methods.staged import Pipeline
from diffusion_jax.models.blocks.conditioning import OptionalVectorEmbedding
from diffusion_jax.models.encoders.clip import CLIP, unit
from diffusion_jax.models.transformers.prior import PriorTransformer
from diffusion_jax.training import held
from diffusion_jax.training.experiment import Experiment, SampleRequest

# Names of stages, and of what runs hold.
ENCODER, PRIOR, SCALING, DECODER, UPPER = "clip", "prior", "scaling", "decoder", "super_resolution"
IMAGE, TEXT = "image_embedding", "text_embedding"
SCHEDULE = schedules.cosine()
LOOKED_AT = 1024  # pictures by whose embeddings the prior's are standardised
LENGTH = captions.WORDS.length


# ---- Values.


def _config(shape: tuple[int, int, int]) -> Config:
    config = pixels.with_shape(with_dir(base_config()), shape)
    config.clip = clip.sizes()
    config.clip.run = values.text("", "work directory of the CLIP (configs/clip.py)")
    config.train.batch_size = 64
    config.train.steps_per_call = 10
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 100
    config.train.ema_decay = 0.99
    config.log.every = 50
    config.log.checkpoint_every = 500
    config.log.sample_every = 500
    config.log.samples = 30
    config.log.preview_steps = 25
    return config


def config_decoder() -> Config:
    """Values of a decoder that makes digits of 8x8 pixels from the embeddings of pictures of 32x32."""
    config = _config((32, 32, 1))
    config.low = Config(size=values.listed((8, 8), "height and width of its pictures", values.Whole(1, 4096), 2, 2))
    config.model = super_resolution.perceptron_values(192, 5)
    config.decoder = Config(
        withheld=values.share(0.1, "share of examples that are not told the picture's embedding"),
        withheld_text=values.share(0.5, "share of examples that are not told the text"),
        guidance=values.number(1.0, "guidance where none is asked for; 1 is as learned", -1000, 1000),
    )
    config.train.batch_size = 128
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
        **guided.guidance_values("text"),  # type: ignore[arg-type]  # ConfigDict's own keywords come first
    )
    config.decoder = config_decoder().model
    config.decoder.run = values.text("", "work directory of the decoder (configs/unclip_decoder.py)")
    config.decoder.guidance = values.number(1.5, "guidance of its chain; 1 is as learned", -1000, 1000)
    config.decoder.steps = values.count(25, "steps of its chain", 100_000)
    upper = super_resolution.config_mnist()
    config.low = upper.low
    config.upper = upper.model
    config.upper.shape = values.listed(
        (16, 16, 1), "height, width and channels of its pictures", values.Whole(1, 4096), 3, 3
    )
    config.upper.run = values.text("", "work directory of the super-resolution (configs/super_resolution.py)")
    config.upper.steps = values.count(25, "steps of its chain", 100_000)
    config.train.steps = 1500
    return config


def _says_x0(schedule, time):
    return parameterizations.x0(time)


# ---- What CLIP says.


def seen(model: CLIP, params: Tree, image: jax.Array) -> jax.Array:
    """The embeddings [B, D] of pictures [B, H, W, C] in [-1, 1]."""
    picture: Any = model.vision.apply({"params": params["vision"]}, image)
    return _of_unit_entries(picture.embedding)


def read(model: CLIP, params: Tree, ids: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Of texts, int and bool [B, L]: "text_embedding" [B, D], "tokens" [B, L, F] and "token_mask" [B, L]."""
    text: Any = model.text.apply({"params": params["text"]}, ids, mask)
    return {TEXT: _of_unit_entries(text.pooled), "tokens": text.final, "token_mask": mask}


def _of_unit_entries(embedding):
    return unit(embedding) * embedding.shape[-1] ** 0.5


# ---- The decoder.


def decoder_network(model: ConfigDict, shape: tuple[int, int, int]) -> Network:
    """A decoder of pictures of `shape`, a perceptron of the values of `super_resolution.perceptron_values`."""
    sizes = SimpleNamespace(model=model, data=SimpleNamespace(shape=shape))
    return super_resolution.perceptron(sizes, {name: OptionalVectorEmbedding() for name in (IMAGE, TEXT)})


def decoder_method(
    data: Data, network: Network, withheld: float = 0.1, withheld_text: float = 0.5, usual: float = 1.0
) -> Method:
    """Diffusion of pictures of the size `data.shape`, told embeddings that are withheld independently (section 2.1).

    Args:
      data: of pictures in [-1, 1].
      network: told "image_embedding" and "text_embedding", of which NaN says nothing.
      withheld, withheld_text: shares of the examples that are not told the picture's, and the text's.
      usual: the scale of guidance where none is asked for; 1 is as learned.
    """
    plain = continuous.model_of(data, network, SCHEDULE, _says_x0, CLIPPED)
    no_text = guidance.replacing(**{TEXT: jnp.nan})
    independent = plain._replace(
        loss=lambda *parts: losses.withholding(plain.loss(*parts), no_text, withheld_text), preview="ddim"
    )
    no_picture = guidance.replacing(**{IMAGE: jnp.nan})
    trained = guided.classifier_free(independent, no_picture, withheld)
    nothing = guidance.replacing(**{IMAGE: jnp.nan, TEXT: jnp.nan})
    return trained._replace(guide=guided.classifier_free(plain, nothing, usual=usual).guide)


def decoder(config: ConfigDict) -> Experiment:
    """A decoder of embeddings as an experiment, with the values of `config_decoder`.

    Samples are told a picture, of which they are variations, or a text, "prompt", or both; by default test pictures.
    """
    shape, low = tuple(config.data.shape), (*config.low.size, config.data.shape[-1])
    model = clip.network(config.clip, shape)
    embedding = jax.ShapeDtypeStruct((config.clip.embedding,), jnp.float32)
    images = captioned.data(shape, captioned.mnist(config.data.dir))

    def encode(held, keys, x0):
        known = {IMAGE: seen(model, held[ENCODER], x0["image"])}
        return resizing.means(x0["image"], low[:2]), {
            **known,
            TEXT: read(model, held[ENCODER], x0["ids"], x0["mask"])[TEXT],
        }

    def encoded(params, keys, cond):
        """What is not told is NaN: a picture of NaN, and a text without an end."""
        text = read(model, params, cond["ids"], cond["mask"])[TEXT]
        told = cond["mask"].any(axis=-1, keepdims=True)
        return {IMAGE: seen(model, params, cond["image"]), TEXT: jnp.where(told, text, jnp.nan)}

    given = {"image": shape, "ids": (LENGTH,), "mask": (LENGTH,)}
    told = {IMAGE: embedding, TEXT: embedding}
    before = Stage(ENCODER, encoded, given, {name: tuple(x.shape) for name, x in told.items()})
    data = images._replace(shape=low, sample_condition=_pictures_or_texts(images, shape))
    clip_run = config.clip.run
    pipeline = Pipeline(
        cache(
            lambda: {ENCODER: params_of(clip_run, "--config.clip.run", "CLIP", "clip", clip_template(model, shape))}
        ),
        encode,
        told,
        given,
        DECODER,
        "image_of_embedding",
        "image_of_embedding",
        (before,),
    )
    section = config.decoder
    method = decoder_method(
        data, decoder_network(config.model, low), section.withheld, section.withheld_text, section.guidance
    )
    return staged.compose(config, pipeline, method)


def _pictures_or_texts(images: Data, shape):
    def default(num):
        source = images.source("test")
        return {"image": images.clean(first_rows(images, source, min(num, len(source))))["image"]}

    texts = conditions.prompts(captions.WORDS.encode, [""])
    pictures = conditions.pictures(default, image=shape)

    def sample_condition(num, given):
        others = {name: x for name, x in given.items() if name != "prompt"}
        if "prompt" in given:
            (text,) = texts(num, {"prompt": given["prompt"]})
        else:
            text = {"ids": np.zeros((num, LENGTH), np.int32), "mask": np.zeros((num, LENGTH), bool)}
        if "prompt" in given and not others:
            return ({**text, "image": np.full((num, *shape), np.nan, np.float32)},)
        return ({**text, **pictures(num, others)[0]},)

    return sample_condition


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
    shape, size = tuple(config.data.shape), config.clip.embedding
    low = (*config.low.size, shape[-1])
    model = clip.network(config.clip, shape)
    images = captioned.data(shape, captioned.mnist(config.data.dir))

    def encode(held, keys, x0):
        z = (seen(model, held[ENCODER], x0["image"]) - held[SCALING]["mean"]) / held[SCALING]["std"]
        return z, read(model, held[ENCODER], x0["ids"], x0["mask"])

    told = {
        TEXT: jax.ShapeDtypeStruct((size,), jnp.float32),
        "tokens": jax.ShapeDtypeStruct((LENGTH, config.clip.features), jnp.float32),
        "token_mask": jax.ShapeDtypeStruct((LENGTH,), jnp.bool_),
    }
    given = {"ids": (LENGTH,), "mask": (LENGTH,)}
    vector = {name: (size,) for name in ("embedding", "mean", "std", IMAGE, TEXT)}

    def of(*names):
        return {name: vector[name] for name in names}

    def scaling(params, keys, cond):
        return {name: jnp.broadcast_to(x, cond[TEXT].shape) for name, x in params.items()}

    def unscaled(cond):
        return cond["embedding"] * cond["std"] + cond["mean"]

    before = (
        Stage(
            ENCODER,
            lambda params, keys, cond: read(model, params, cond["ids"], cond["mask"]),
            given,
            {name: tuple(x.shape) for name, x in told.items()},
        ),
        Stage(SCALING, scaling, of(TEXT), of("mean", "std")),
    )
    # Methods of the two runs, for their networks and chains alone: nothing is read of their data.
    small = decoder_method(images._replace(shape=low), decoder_network(config.decoder, low))
    pictures = tuple(config.upper.shape)
    sizes = SimpleNamespace(model=config.upper, data=SimpleNamespace(shape=pictures))
    large = super_resolution.mnist(sizes, images._replace(shape=pictures))
    level, steps, upper_steps = config.low.level, config.decoder.steps, config.upper.steps
    guided_by = config.decoder.guidance

    def after(request):
        asked = SampleRequest(request.batch, steps, gather=request.gather)
        decode = staged.chains(small)["ddim"](asked._replace(guidance_scale=guided_by))
        enlarge = super_resolution.spoiling(staged.chains(large)["ddim"])(asked._replace(steps=upper_steps))
        return (
            stages.arrays(
                "unscaled", lambda cond: {IMAGE: unscaled(cond)}, of("embedding", "mean", "std"), of(IMAGE)
            ),
            stages.chain(DECODER, decode, of(IMAGE, TEXT), LOW, low),
            stages.arrays("level", lambda cond: {LEVEL: jnp.full(len(cond[LOW]), level)}, {LOW: low}, {LEVEL: ()}),
            stages.chain(UPPER, enlarge, {LOW: low, LEVEL: ()}, "image", pictures),
        )

    def nearest(stage):
        def score(cond):
            return jnp.sum(cond[TEXT] * unscaled(cond), axis=-1)

        return stages.best_of(config.prior.draws, score, stage, of(TEXT, "mean", "std"))

    network = PriorTransformer(LENGTH, config.prior.features, config.prior.layers, config.prior.heads)
    data = images._replace(shape=(size,), sample_condition=conditions.prompts(captions.WORDS.encode, captions.ALL))
    method = continuous.model_of(data, network, SCHEDULE, _says_x0)
    null = guidance.replacing(**{TEXT: 0.0, "tokens": 0.0, "token_mask": False})
    method = guided.classifier_free(method, null, config.prior.withheld, config.prior.guidance)
    hold = _held_of(config, model, images, small, large)
    return Pipeline(hold, encode, told, given, PRIOR, "embedding", "image", before, after, nearest), method


def _held_of(config: ConfigDict, model: CLIP, images: Data, small: Method, large: Method) -> Hold:
    """`() -> {"clip", "scaling", "decoder", "super_resolution"}`, of the runs that the config names."""
    shape = tuple(config.data.shape)
    size = config.clip.embedding
    folders = {ENCODER: config.clip.run, DECODER: config.decoder.run, UPPER: config.upper.run}

    @cache
    def hold():
        encoder = params_of(folders[ENCODER], "--config.clip.run", "CLIP", "clip", clip_template(model, shape))
        told = {name: jnp.zeros((1, size)) for name in (IMAGE, TEXT)}
        low = {LOW: jnp.zeros((1, *small.data.shape)), LEVEL: jnp.zeros(1)}
        decoder = params_of(
            folders[DECODER], "--config.decoder.run", "decoder", "decoder", _template(small, told), encoder
        )
        upper = params_of(folders[UPPER], "--config.upper.run", "super-resolution", "upper", _template(large, low))
        return {ENCODER: encoder, SCALING: statistics(model, encoder, images), DECODER: decoder, UPPER: upper}

    return hold


def statistics(model: CLIP, params: Tree, images: Data) -> dict[str, np.ndarray]:
    """{"mean", "std"}, float32 [D], of the embeddings of the first pictures to train with."""
    batch = first_rows(images, images.source("train"), LOOKED_AT)
    found = np.asarray(
        jax.jit(lambda params, image: seen(model, params, image))(params, images.clean(batch)["image"])
    )
    return {"mean": found.mean(axis=0), "std": found.std(axis=0)}


def clip_template(model: CLIP, shape: tuple[int, int, int]) -> Tree:
    """The shapes of a CLIP's parameters."""
    ids = jnp.zeros((1, LENGTH), jnp.int32)
    return jax.eval_shape(model.init, rng.root(0), ids, jnp.zeros((1, *shape)), ids > 0)["params"]


def _template(method: Method, cond: Mapping[str, jax.Array]) -> Tree:
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
