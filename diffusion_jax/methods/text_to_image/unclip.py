"""unCLIP (Ramesh et al. 2022) at its paper's size: a prior, a decoder and two networks that enlarge.

The decoder has no text transformer of its own, which the paper found to help little. It reads what CLIP's says, as
Karlo's does. The first network that enlarges is told blurred small pictures in training, the second those that BSR
spoils (`data.degradations`). Both draw from pictures that are made small and not spoiled, as the stage before gives.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import resizing
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold, SampleCondition
from diffusion_jax.data import conditions, degradations
from diffusion_jax.data.images import to_float
from diffusion_jax.data.pipeline import random_crop
from diffusion_jax.data.sources import Mapped
from diffusion_jax.diffusion import cascades, schedules, stages
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.unclip import IMAGE, TEXT
from diffusion_jax.methods import captioned, continuous, ddpm, guided, pixels, staged, unclip
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.methods.compose import Data, Method, base_config, compose, with_dir
from diffusion_jax.methods.super_resolution import augmented
from diffusion_jax.methods.text_to_image import readers, unclip_parts
from diffusion_jax.methods.text_to_image.readers import MASK, TOKENS, Clip
from diffusion_jax.methods.text_to_image.unclip_parts import DECODER, ENCODER, SCALING
from diffusion_jax.models.blocks.conditioning import GivenEmbedding
from diffusion_jax.models.encoders.text_projection import TextProjection
from diffusion_jax.models.transformers.prior import PriorTransformer
from diffusion_jax.models.unets.added_keys import AddedKeyUNet
from diffusion_jax.models.unets.adm import ADMUNet
from diffusion_jax.models.unets.of_embeddings import OfEmbeddings
from diffusion_jax.models.unets.super_resolution import SuperResolution
from diffusion_jax.training.experiment import Experiment, SampleRequest
from diffusion_jax.training.optimizers import adamw_of_betas, with_betas, with_epsilon, with_weight_decay

UNTOLD = {TEXT: 0.0, TOKENS: 0.0, MASK: False}  # what stands for no text
SIGMA = 0.6  # pixels, of the blur


# ---- Values.


def config_decoder() -> Config:
    """The paper's values of the decoder, 64x64 pixels of the embeddings of pictures of 256x256 (table 3)."""
    config = ddpm.with_table(_unet_values((256, 256, 3), 512, (1, 2, 3, 4), 3, (1, 2, 3), 0.0))
    config.clip = readers.values_of("CLIP", 77)
    config.low = Config(size=values.listed((64, 64), "height and width of its pictures", values.Whole(1, 4096), 2, 2))
    config.model.tokens = values.count(2048, "features of a token that it reads", 65_536)
    config.decoder = Config(
        withheld=values.share(0.1, "share of examples that are not told the picture's embedding"),
        withheld_text=values.share(0.5, "share of examples that are not told the text"),
        guidance=values.number(8.0, "guidance where none is asked for; 1 is as learned", -1000, 1000),
    )
    return _trained(config, 2048, 800_000, 1.2e-4)


def config_prior() -> Config:
    """The paper's values of the prior (table 3), and those of a decoder's run."""
    config = with_weight_decay(pixels.with_shape(with_dir(base_config()), (256, 256, 3)), 0.06)
    config = with_epsilon(with_betas(config, (0.9, 0.96)), 1e-6)
    config.data.threads = 32
    config.clip = readers.values_of("CLIP", 77)
    config.prior = Config(
        features=values.count(2048, "features of the prior's rows, even, a multiple of heads", 65_536),
        layers=values.count(24, "blocks of the prior", 256),
        heads=values.count(32, "heads of attention", 1024),
        draws=values.count(2, "samples of the prior of which the nearest to the text stays", 1024),
        bfloat16=values.flag(True, "whether its blocks compute in bfloat16"),
        **guided.guidance_values("text", usual=1.0),  # type: ignore[arg-type]  # ConfigDict's own keywords come first
    )
    config.decoder = config_decoder().model
    config.decoder.low = values.listed((64, 64), "height and width of its pictures", values.Whole(1, 4096), 2, 2)
    config.decoder.run = values.text("", "work directory of the decoder (configs/unclip_decoder_folder.py)")
    config.decoder.guidance = values.number(8.0, "guidance of its chain; 1 is as learned", -1000, 1000)
    config.decoder.steps = values.count(50, "steps of its chain", 100_000)
    config.decoder.timesteps = values.count(1000, "steps of the table that it was trained on", 1_000_000)
    return _trained(config, 4096, 600_000, 1.1e-4)


def config_256() -> Config:
    """The paper's values of 64x64 to 256x256, trained on a quarter of each side (table 3)."""
    config = _upper_values((256, 256, 3), (64, 64), (64, 64), 320, (1, 2, 3, 4), 3)
    config.model.dropout = 0.1
    return _trained(config, 1024, 1_000_000, 1.2e-4)


def config_1024() -> Config:
    """The paper's values of 256x256 to 1024x1024, trained on a quarter of each side (table 3)."""
    config = _upper_values((1024, 1024, 3), (256, 256), (256, 256), 192, (1, 1, 2, 2, 4, 4), 2)
    return _trained(config, 512, 1_000_000, 1e-4)


def _unet_values(shape, channels, multipliers, blocks, attention_levels, dropout) -> Config:
    config = pixels.default_config()
    config.data.shape = shape
    config.data.threads = 32
    del config.data.flip  # a text may say left and right
    config.model.channels = channels
    config.model.multipliers = multipliers
    config.model.blocks = blocks
    config.model.attention_levels = attention_levels
    config.model.dropout = dropout
    config.model.bfloat16 = True
    return config


def _upper_values(shape, low, part, channels, multipliers, blocks) -> Config:
    config = ddpm.with_table(_unet_values(shape, channels, multipliers, blocks, (), 0.0))
    size = values.Whole(1, 4096)
    config.low = Config(size=values.listed(low, "height and width of the small images", size, 2, 2))
    config.data.part = values.listed(part, "height and width of the parts that are trained on", size, 2, 2)
    return config


def _trained(config, batch, steps, rate) -> Config:
    config.train.batch_size = batch
    config.train.steps = steps
    config.train.learning_rate = rate
    config.log.samples = 16
    return config


# ---- The decoder.


def decoder(config: ConfigDict) -> Experiment:
    """A decoder as an experiment, with the values of `config_decoder`."""
    clip = readers.clip(config.clip, "--config.clip")
    images = captioned.own(config, clip.reader.tokenizer.encode, clip.reader.tokenizer.length)
    shape = (*config.low.size, config.data.shape[-1])
    section = config.decoder
    plain = decoder_method(config.model, config.diffusion, images._replace(shape=shape))
    method = unclip_parts.told_apart(plain, UNTOLD, section.withheld, section.withheld_text, section.guidance)
    return unclip_parts.decoder(config, clip, _held(clip), images, method, UNTOLD, split="train")


def decoder_method(model: ConfigDict, diffusion: ConfigDict, data: Data) -> Method:
    """A decoder that says mean and variance of pictures of `data.shape`, told what `OfEmbeddings` hears."""
    as_config = ConfigDict({"model": model, "diffusion": diffusion, "data": {"shape": tuple(data.shape)}})
    network = pixels.unet(as_config, outputs=2, kind=AddedKeyUNet, embed={"vector": GivenEmbedding()})
    project = TextProjection(features=model.tokens, width=4 * model.channels, dtype=network.dtype)
    return guided.learned(as_config, data, OfEmbeddings(project, network))


def _held(clip: Clip) -> Hold:
    return cache(lambda: {ENCODER: clip.reader.read()})


# ---- The prior.


def prior(config: ConfigDict) -> Experiment:
    """A prior as an experiment, with the values of `config_prior`; its samples are the decoder's pictures."""
    clip = readers.clip(config.clip, "--config.clip")
    reader, section = clip.reader, config.prior
    images = captioned.own(config, reader.tokenizer.encode, reader.tokenizer.length)
    dtype = jnp.bfloat16 if section.bfloat16 else jnp.float32
    length = reader.tokenizer.length
    network = PriorTransformer(length, section.features, section.layers, section.heads, dtype)
    data = images._replace(sample_condition=conditions.prompts(reader.tokenizer.encode, [""]))
    method = unclip_parts.prior(data, clip, network, section.withheld, section.guidance, continuous.says_x0)
    shape = (*config.decoder.low, config.data.shape[-1])
    table = ConfigDict({"timesteps": config.decoder.timesteps})
    plain = decoder_method(config.decoder, table, images._replace(shape=shape))
    small = unclip_parts.told_apart(plain, UNTOLD, 0.0, 0.0, config.decoder.guidance)
    steps = config.decoder.steps
    needs = {IMAGE: (clip.size,), **{name: tuple(x.shape) for name, x in reader.told.items()}}

    def after(request):
        asked = SampleRequest(request.batch, steps, gather=request.gather)
        return (stages.chain(DECODER, staged.chains(small)["ddim"](asked), needs, "image", shape),)

    run = config.decoder.run

    @cache
    def hold():
        encoder = reader.read()
        told = {name: jnp.zeros((1, *x.shape), x.dtype) for name, x in reader.told.items()}
        template = unclip.template_of(small, {IMAGE: jnp.zeros((1, clip.size)), **told})
        found = unclip.params_of(run, "--config.decoder.run", "decoder", "decoder", template, encoder)
        return {ENCODER: encoder, SCALING: unclip_parts.statistics(clip, encoder, images), DECODER: found}

    pipeline = unclip_parts.prior_pipeline(clip, hold, section.draws, after, "image")
    return staged.compose(config, pipeline, method._replace(optimizer=adamw_of_betas))


# ---- Networks that enlarge.


def upper_256(config: ConfigDict) -> Experiment:
    """A network that enlarges to 256x256, with the values of `config_256`; of its small pictures half are blurred."""
    data = _parts(config)
    told = data._replace(condition=partial(_small, config, data))
    blurred = cascades.silently(cascades.blurred(SIGMA, SIGMA))
    return compose(config, augmented(_enlarging(config, told, schedules.cosine_betas), blurred))


def upper_1024(config: ConfigDict) -> Experiment:
    """A network that enlarges to 1024x1024, with the values of `config_1024`; BSR spoils its small pictures."""
    return compose(config, _enlarging(config, _spoiled(config, _parts(config)), schedules.linear_betas))


def _parts(config) -> Data:
    """Parts of pictures to train on; samples are whole pictures, told whole small ones."""
    part, channels = tuple(config.data.part), config.data.shape[-1]
    whole = pixels.data(config, pixels.own_images(config))
    return whole._replace(
        example={"image": jax.ShapeDtypeStruct((*part, channels), jnp.uint8)},
        transforms=(random_crop(part),),
        sample_condition=_pictures(config, whole),
    )


def _spoiled(config, parts: Data) -> Data:
    """`parts`, each with a small picture: of the whole and not spoiled in the source, spoiled after transforms."""
    ratio = _ratio(config)
    height, width, channels = parts.example["image"].shape

    def with_small(features):
        return features | {LOW: degradations.means(features["image"], ratio)}

    return parts._replace(
        source=lambda split: Mapped(parts.source(split), with_small),
        example={**parts.example, LOW: jax.ShapeDtypeStruct((height // ratio, width // ratio, channels), jnp.uint8)},
        transforms=(*parts.transforms, degradations.spoiling(degradations.bsr(ratio))),
        condition=lambda batch: ({LOW: to_float(batch[LOW])},),
    )


def _enlarging(config, data: Data, betas) -> Method:
    """Convolutions alone, told a small picture and no text: trained on parts, it draws whole pictures."""
    network = pixels.unet(config, outputs=2, kind=ADMUNet, middle_attention=False)
    return guided.learned(config, data, SuperResolution(network), betas)._replace(preview="ddim")


def _small(config, data, batch):
    pictures, ratio = data.clean(batch), _ratio(config)
    return ({LOW: resizing.means(pictures, tuple(side // ratio for side in pictures.shape[1:3]))},)


def _ratio(config) -> int:
    """How many times a side is longer than that of the small picture."""
    shape, low = tuple(config.data.shape), tuple(config.low.size)
    ratio = max(1, shape[0] // low[0])
    if shape[:2] != (ratio * low[0], ratio * low[1]):
        raise InputError(f"data.shape={shape} is no whole multiple of low.size={low}; give sizes of one ratio")
    return ratio


def _pictures(config, whole: Data) -> SampleCondition:
    """Small pictures of the user's; by default those of the first pictures that are trained on."""

    def default(num):
        return _small(config, whole, first_rows(whole, whole.source("train"), num))[0]

    return conditions.pictures(default, **{LOW: (*config.low.size, config.data.shape[-1])})
