"""Imagen's base (Saharia et al. 2022): images of a text, with classifier-free guidance and dynamic thresholding.

In small: the encoder of the texts is a T5 of random weights, trained together with the base. The base hears the mean
of the encoded tokens.
"""

from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Source
from diffusion_jax.data import captions, conditions, images
from diffusion_jax.diffusion import guidance, parameterizations, schedules
from diffusion_jax.methods import captioned, continuous, guided
from diffusion_jax.methods.compose import Method, composed
from diffusion_jax.models.blocks.conditioning import VectorEmbedding
from diffusion_jax.models.encoders.t5 import T5Encoder
from diffusion_jax.models.encoders.told_texts import ToldTexts

PERCENTILE = 0.995  # of dynamic thresholding


def config_mnist() -> Config:
    """Values for MNIST of 8x8 pixels and its captions: a perceptron and an encoder of two blocks."""
    config = captioned.config_mnist((8, 8, 1))
    config.model = captioned.perceptron_values(192, 5)
    config.train.steps = 2000
    config.train.decay_steps = 1900
    config.text = Config(
        features=values.count(64, "features of the text's tokens", 65_536),
        layers=values.count(2, "blocks of the text's encoder", 256),
        heads=values.count(4, "heads of attention", 1024),
        **guided.guidance_values("text", usual=1.5),  # type: ignore[arg-type]  # ConfigDict's own keywords come first
    )
    config.text.threshold = values.number(1.0, "largest threshold of estimates; 1 clips, more is dynamic", 1, 1000)
    return config


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
    width, hidden = max(1, text.features // text.heads), 2 * text.features
    encoder = T5Encoder(words.size, text.features, width, hidden, text.layers, text.heads)
    network = ToldTexts(
        encoder, captioned.perceptron(config.model, tuple(config.data.shape), {"pooled": VectorEmbedding()})
    )
    plain = continuous.model_of(
        data,
        network,
        schedules.cosine(),
        lambda schedule, time: parameterizations.x0(time),
        (guidance.dynamic_threshold(PERCENTILE, text.threshold),),
    )
    (ids,), (mask,) = words.encode([""])
    return guided.classifier_free(plain, guidance.replacing(ids=ids, mask=mask), text.withheld, text.guidance)


build = composed(method)
