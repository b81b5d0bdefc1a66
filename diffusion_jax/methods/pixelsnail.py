"""PixelSNAIL (Chen et al. 2018) in the place of PixelCNN's network; all else is `methods.pixelcnn`."""

from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.methods.pixelcnn import raster_fields
from diffusion_jax.models.autoregressive.pixelsnail import PixelSNAIL


def with_network(config: Config) -> Config:
    """`config` with the values of a small PixelSNAIL in the place of those of another network."""
    config.model = Config(
        features=values.count(64, "features of a layer, a multiple of the heads", 65_536),
        blocks=values.count(2, "blocks of gated convolutions, with attention after each", 256),
        repeats=values.count(2, "gated convolutions of a block", 256),
        heads=values.count(4, "heads of attention", 1024),
        key_features=values.count(16, "features of a head's keys", 16_384),
        token_features=values.count(16, "features of a token's vector", 16_384),
        head_features=values.count(128, "features before the logits", 65_536),
        dropout=values.share(0.4, "share of features that are dropped in training", below=True),
        bfloat16=values.flag(False, "whether products are in bfloat16"),
    )
    return config


def network(config: ConfigDict, vocab: int, **fields: Any) -> PixelSNAIL:
    """The PixelSNAIL of the values of `config.model`; `fields` are more of its fields (`embed`, `maps`)."""
    own = {name: config.model[name] for name in ("blocks", "repeats", "heads", "key_features")}
    return PixelSNAIL(vocab, **raster_fields(config), **own, **fields)
