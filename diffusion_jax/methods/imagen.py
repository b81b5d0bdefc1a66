"""Imagen's base (Saharia et al. 2022): images of a text, with classifier-free guidance and dynamic thresholding.

In small: the encoder of the texts is a T5 of random weights, trained together with the base. The base is a U-Net that
attends to the encoded tokens, and hears their mean.
"""

from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Network, Source, Transform
from diffusion_jax.data import captions, conditions, images
from diffusion_jax.diffusion import guidance, schedules
from diffusion_jax.methods import captioned, continuous, guided, pixels, texts
from diffusion_jax.methods.compose import Data, Method, with_dir
from diffusion_jax.models.blocks.conditioning import MeanTokensEmbedding
from diffusion_jax.models.encoders.t5 import T5Encoder
from diffusion_jax.models.encoders.told_texts import ToldTexts
from diffusion_jax.models.unets.added_keys import AddedKeyUNet
from diffusion_jax.models.unets.adm import heads_always
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.training.experiment import Experiment

PERCENTILE = 0.995  # of dynamic thresholding
HEADS = heads_always(4)  # of attention within U-Nets
SCHEDULE = schedules.cosine()


def config_mnist() -> Config:
    """Values for MNIST of 8x8 pixels and its captions: a U-Net of two levels and an encoder of two blocks."""
    config = with_dir(pixels.config_digits())
    config.model.attention_levels = (1,)
    config.text = text_values()
    for name, value in guided.guidance_values("text", usual=1.5).items():
        config.text[name] = value
    config.text.threshold = threshold_value()
    config.train.batch_size = 64
    config.train.steps = 2000
    config.train.decay_steps = 1900
    config.train.ema_decay = 0.99
    config.log.checkpoint_every = 500
    config.log.sample_every = 500
    config.log.samples = 30
    config.log.preview_steps = 25
    return config


def text_values() -> Config:
    """What `encoder_of` reads."""
    return Config(
        features=values.count(64, "features of the text's tokens", 65_536),
        layers=values.count(2, "blocks of the text's encoder", 256),
        heads=values.count(4, "heads of attention", 1024),
    )


def threshold_value(usual: float = 1.0) -> values.Value:
    """How estimates are bound."""
    return values.number(usual, "largest threshold of estimates; 1 clips, more is dynamic", 1, 1000)


def encoder_of(text: Any) -> T5Encoder:
    """A small T5 of the captions' words, with the values of `text_values`."""
    width = max(1, text.features // text.heads)
    return T5Encoder(captions.WORDS.size, text.features, width, 2 * text.features, text.layers, text.heads)


def network_of(config: Any) -> Skeleton:
    """The base without its encoder, with the values of `config.model`, for images of `config.data.shape`."""
    return pixels.unet(config, kind=AddedKeyUNet, heads=HEADS, embed={"text": MeanTokensEmbedding()})


def reading(config: Any) -> ToldTexts:
    """The base with its encoder."""
    return ToldTexts(encoder_of(config.text), network_of(config))


def plain(data: Data, network: Network, threshold: float) -> Method:
    """A base that learns x0, without guidance; `threshold` is the largest of dynamic thresholding."""
    return continuous.model_of(data, network, SCHEDULE, continuous.says_x0, (thresholding(threshold),))


def thresholding(largest: float) -> Transform:
    """Dynamic thresholding at the paper's percentile."""
    return guidance.dynamic_threshold(PERCENTILE, largest)


def method(config: ConfigDict, source: Source) -> Method:
    """A base that learns x0 of captioned digits, with the values of `config_mnist`.

    Args:
      config: values.
      source: `split -> source` of labelled digits, images of `config.data.shape`.
    """
    words, text = captions.WORDS, config.text
    captioned_data = captioned.data(tuple(config.data.shape), source)
    data = captioned_data._replace(
        clean=lambda batch: images.to_float(batch["image"]),
        condition=lambda batch: ({"ids": batch["ids"], "mask": batch["mask"]},),
        shape=tuple(config.data.shape),
        sample_condition=conditions.prompts(words.encode, captions.ALL),
    )
    (ids,), (mask,) = words.encode([""])
    told = plain(data, reading(config), text.threshold)
    return guided.classifier_free(told, guidance.replacing(ids=ids, mask=mask), text.withheld, text.guidance)


def build(config: ConfigDict, source: Source) -> Experiment:
    """`method` as an experiment whose samplers encode a text once."""
    encode, usual = captions.WORDS.encode, config.text.guidance
    return texts.compose_read(config, method(config, source), reading(config), encode, usual)
