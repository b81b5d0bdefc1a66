"""Imagen (Saharia et al. 2022): a base and two networks that enlarge, all told what a T5 says of a text.

Each is trained by itself, and holds the T5. Two values are not the paper's. It does not say how Adafactor is set. And
the log-SNR of the cosine schedule is kept within +-20: of no signal an estimate of noise says nothing.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import resizing, rng
from diffusion_jax.core.protocols import Augment
from diffusion_jax.data import conditions
from diffusion_jax.data.pipeline import random_crop
from diffusion_jax.diffusion import cascades, guidance, parameterizations, schedules
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.methods import captioned, continuous, guided, pixels, staged
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.methods.compose import Data, Method
from diffusion_jax.methods.imagen import PERCENTILE
from diffusion_jax.methods.staged import Pipeline
from diffusion_jax.methods.super_resolution import augmented, with_low
from diffusion_jax.methods.text_to_image import readers
from diffusion_jax.methods.text_to_image.readers import MASK, TOKENS, Reader
from diffusion_jax.models.blocks.conditioning import NumberEmbedding, TokensEmbedding
from diffusion_jax.models.unets.added_keys import AddedKeyUNet
from diffusion_jax.models.unets.adm import heads_of_width
from diffusion_jax.models.unets.efficient import EfficientUNet
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.models.unets.super_resolution import SuperResolution
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.optimizers import adafactor

ENCODER, BASE, UPPER = "text", "base", "super_resolution"  # stages
WITHHELD = guidance.replacing(**{TOKENS: 0.0, MASK: True})


# ---- Values.


def _config(shape: tuple[int, int, int], guidance_scale: float) -> Config:
    config = pixels.default_config()
    config.data.shape = shape
    config.data.threads = 32
    del config.data.flip  # a text may say left and right
    config.model.dropout = 0.0
    config.model.bfloat16 = True
    config.text = readers.values_of("T5", 256)
    config.text.heads = values.count(64, "heads that make one vector of a text", 1024)
    for name, value in guided.guidance_values("text", usual=guidance_scale).items():
        config.text[name] = value
    config.text.threshold = values.number(1000.0, "largest threshold of estimates; 1 clips", 1, 1000)
    config.train.batch_size = 2048
    config.train.steps = 2_500_000
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 10_000
    config.log.samples = 16
    return config


def config_base() -> Config:
    """The paper's values of the base, 64x64 (appendix F.1)."""
    config = _config((64, 64, 3), 1.35)
    config.model.channels = 512
    config.model.multipliers = (1, 2, 3, 4)
    config.model.blocks = 3
    config.model.attention_levels = (1, 2, 3)
    return config


def config_256() -> Config:
    """The paper's values of 64x64 to 256x256 (appendix F.2)."""
    return _config_upper((256, 256, 3), (64, 64))


def config_1024() -> Config:
    """The paper's values of 256x256 to 1024x1024, trained on parts of 256x256 (appendix F.3)."""
    config = _config_upper((1024, 1024, 3), (256, 256))
    config.data.part = values.listed(
        (256, 256), "height and width of the parts of pictures that are trained on", values.Whole(1, 4096), 2, 2
    )
    return config


def _config_upper(shape: tuple[int, int, int], low: tuple[int, int]) -> Config:
    config = with_low(_config(shape, 8.0), low)
    config.model.channels = 128
    config.model.multipliers = (1, 2, 4, 8)
    config.model.blocks = values.listed((2, 4, 8, 8), "residual blocks of each level", values.Whole(1, 64), 1, 12)
    config.model.attention_levels = (3,)
    return config


# ---- The base.


def base(config: ConfigDict) -> Experiment:
    """A base as an experiment, with the values of `config_base`."""
    reader = readers.t5(config.text, "--config.text")
    data = captioned.own(config, reader.tokenizer.encode, reader.tokenizer.length)
    network = pixels.unet(
        config,
        kind=AddedKeyUNet,
        heads=heads_of_width(64),
        embed={TOKENS: TokensEmbedding(config.text.heads)},
    )
    schedule = schedules.bounded_cosine()
    plain = continuous.model_of(data, network, schedule, parameterizations.eps, (_threshold(config),))
    method = guided.classifier_free(plain, WITHHELD, config.text.withheld, config.text.guidance)

    def encode(held, keys, x0):
        return x0["image"], reader.says(held[ENCODER], x0["ids"], x0["mask"])

    pipeline = Pipeline(
        _held(reader), encode, reader.told, _read(reader), BASE, "image", "image", (reader.stage(ENCODER),)
    )
    told = conditions.prompts(reader.tokenizer.encode, [""])
    shown = data._replace(shape=tuple(config.data.shape), sample_condition=told)
    return staged.compose(config, pipeline, method._replace(data=shown, optimizer=adafactor))


def _threshold(config):
    return guidance.dynamic_threshold(PERCENTILE, config.text.threshold)


def _read(reader: Reader):
    length = (reader.tokenizer.length,)
    return {"ids": length, "mask": length}


def _held(reader: Reader):
    return cache(lambda: {ENCODER: reader.read()})


# ---- Networks that enlarge.


def upper_256(config: ConfigDict) -> Experiment:
    """A network that enlarges to 256x256, with the values of `config_256`; it attends to pixels and to the text."""
    return _upper(config, schedules.bounded_cosine(), _own(config), config.data.shape, ())


def upper_1024(config: ConfigDict) -> Experiment:
    """A network that enlarges to 1024x1024, with the values of `config_1024`; it attends to the text alone."""
    part, levels = tuple(config.data.part), tuple(config.model.attention_levels)

    def own(reader: Reader) -> Data:
        data = _own(config)(reader)
        image = jax.ShapeDtypeStruct((*part, config.data.shape[-1]), jnp.uint8)
        return data._replace(example={**data.example, "image": image}, transforms=(random_crop(part),))

    return _upper(config, schedules.vp_linear(), own, (*part, config.data.shape[-1]), levels)


def _own(config: ConfigDict) -> Callable[[Reader], Data]:
    return lambda reader: captioned.own(config, reader.tokenizer.encode, reader.tokenizer.length)


def _upper(
    config: ConfigDict,
    schedule: Schedule,
    own: Callable[[Reader], Data],
    trained_on,
    text_only_levels: tuple[int, ...],
) -> Experiment:
    reader = readers.t5(config.text, "--config.text")
    data, augment = own(reader), cascades.noised(schedule)
    shape = tuple(config.data.shape)
    low = (*config.low.size, shape[-1])
    times = shape[0] // low[0]
    small = (trained_on[0] // times, trained_on[1] // times)
    told = {
        **reader.told,
        LOW: jax.ShapeDtypeStruct(low, jnp.float32),
        LEVEL: jax.ShapeDtypeStruct((), jnp.float32),
    }
    method = _enlarging(config, data, schedule, augment, text_only_levels)

    def encode(held, keys, x0):
        image = x0["image"]
        says = reader.says(held[ENCODER], x0["ids"], x0["mask"])
        return image, {**says, LOW: resizing.means(image, small), LEVEL: jnp.zeros(len(image))}

    before = (reader.stage(ENCODER), spoiled(augment, low))
    given = {**_read(reader), LOW: low, LEVEL: ()}
    pipeline = Pipeline(_held(reader), encode, told, given, UPPER, "image", "image", before)
    shown = data._replace(shape=shape, sample_condition=_pictures_and_texts(config, data, reader, low))
    return staged.compose(config, pipeline, method._replace(data=shown))


def _enlarging(
    config: ConfigDict, data: Data, schedule: Schedule, augment: Augment, text_only_levels: tuple[int, ...]
) -> Method:
    network: Skeleton = pixels.unet(
        config,
        kind=EfficientUNet,
        blocks=tuple(config.model.blocks),
        text_only_levels=text_only_levels,
        embed={TOKENS: TokensEmbedding(config.text.heads), LEVEL: NumberEmbedding(1000)},
    )
    plain = continuous.model_of(
        data, SuperResolution(network), schedule, parameterizations.eps, (_threshold(config),)
    )
    noisy = augmented(plain, cascades.telling(augment))
    return guided.classifier_free(noisy, WITHHELD, config.text.withheld, config.text.guidance)


def spoiled(augment: Augment, low: tuple[int, int, int]) -> Stage:
    """Conditioning augmentation as a stage: what a sample is told, of a clean small picture and a level."""

    def run(params, keys, cond):
        own = jax.vmap(lambda key: rng.stream(key, "augment"))(keys)
        return {LOW: augment(own, cond[LOW], cond[LEVEL])}

    return Stage("augment", run, {LOW: low, LEVEL: ()}, {LOW: low})


def _pictures_and_texts(config: ConfigDict, data: Data, reader: Reader, low: tuple[int, int, int]):
    """Small pictures of the user's, each with a text; by default those of the first pictures that are trained on."""
    texts = conditions.prompts(reader.tokenizer.encode, [""])

    def default(num):
        whole = data._replace(example={**data.example, "image": jax.ShapeDtypeStruct(config.data.shape, jnp.uint8)})
        return whole.clean(first_rows(whole, data.source("train"), num))

    def told(num, given):
        known = {} if LOW in given else default(num)
        small = given[LOW] if LOW in given else resizing.means(known["image"], low[:2])
        rest = {name: x for name, x in given.items() if name not in (LOW, "prompt")}
        (pictures,) = conditions.pictures(dict, **{LOW: low})(num, {**rest, LOW: small})
        if known and "prompt" not in given:
            return ({**pictures, **{name: conditions.in_turn(known[name], num) for name in ("ids", "mask")}},)
        (text,) = texts(num, {name: x for name, x in given.items() if name == "prompt"})
        return ({**pictures, **text},)

    return conditions.swept(told, LEVEL, config.low.level)
