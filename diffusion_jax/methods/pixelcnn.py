"""Autoregressive models of tokens: pixels, or codes of an encoder, each drawn given all those before it.

(PixelCNN, van den Oord et al. 2016; as a prior over codes, van den Oord et al. 2017, section 3.3.)
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.diffusion import losses_discrete, parameterizations, processes, samplers, time_sampling, timesteps
from diffusion_jax.methods import likelihoods
from diffusion_jax.methods.compose import Chain, Data, Method, composed
from diffusion_jax.models.autoregressive.pixelcnn import GatedPixelCNN
from diffusion_jax.training.optimizers import adamw, with_weight_decay

SIDE = "side of the windows of {}, odd"


def with_network(config: Config) -> Config:
    """`config` with the values of a Gated PixelCNN and its training, of the size of the paper's ImageNet experiment.

    20 layers of 384 features and 5x5 windows, for 200,000 updates (van den Oord et al. 2016b).
    """
    config = with_weight_decay(config, usual=0.0)
    config.model = Config(
        features=values.count(384, "features of a layer, a multiple of the channels of a pixel", 65_536),
        layers=values.count(20, "gated layers, with the first", 256),
        side=values.count(5, SIDE.format("layers"), 63, least=3),
        first_side=values.count(7, SIDE.format("the first layer"), 63, least=3),
        token_features=values.count(16, "features of a token's vector", 16_384),
        head_features=values.count(1152, "features before the logits, a multiple of the channels", 65_536),
        dropout=values.share(0.0, "share of features that are dropped in training", below=True),
        bfloat16=values.flag(False, "whether products are in bfloat16"),
    )
    config.train.steps = 200_000
    config.log.preview_steps = 0
    return config


def with_small_network(config: Config) -> Config:
    """`config` with those for few positions and few examples, such as digits or their codes.

    The decay of weights is 1, a hundred times AdamW's usual, for such a network soon recites a thousand examples:
    with 0.01 the test digits cost 1.71 bits a pixel after 2000 updates and 1.79 after 3000, with 1 they cost 1.70 and
    1.68 (one run each).
    """
    config = with_network(config)
    config.model.update(features=32, layers=5, side=3, first_side=5, token_features=8, head_features=64, dropout=0.2)
    config.data.threads = 1
    config.train.update(batch_size=32, steps=3000, steps_per_call=10, learning_rate=1e-3, warmup_steps=100)
    config.train.update(weight_decay=1.0, ema_decay=0.997)
    config.log.update(every=50, checkpoint_every=1000, sample_every=1000, samples=36)
    return config


def network(config: ConfigDict, vocab: int, **fields: Any) -> GatedPixelCNN:
    """The Gated PixelCNN of the values of `config.model`; `fields` are more of its fields (`embed`, `maps`)."""
    model = config.model
    own = {"layers": model.layers, "side": model.side, "first_side": model.first_side}
    return GatedPixelCNN(vocab, **raster_fields(config), **own, **fields)


def raster_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields that all networks of tokens in raster order have, with the values of `config.model`."""
    model = config.model
    return {
        "features": model.features,
        "token_features": model.token_features,
        "head_features": model.head_features,
        "dropout": model.dropout,
        "dtype": jnp.bfloat16 if model.bfloat16 else jnp.float32,
    }


def method(config: ConfigDict, data: Data, model: nn.Module, vocab: int) -> Method:
    """An autoregressive model as an experiment; its loss is -log p(x0), in nats a token.

    Args:
      config: values, with the sections of `compose.base_config` and the decay of `optimizers.with_weight_decay`.
      data: tokens 0, ..., vocab - 1, [H, W, C] or [H, W]; pixels, or codes. Others make the loss NaN:
        `sources.with_tokens` refuses stored ones by name.
      model: gives logits [..., vocab] of each token, given those before it (`models.autoregressive`). It is shown
        `vocab` where a token is not known yet.
      vocab: number of tokens; `InputError` where the model answers other logits.
    """
    size = math.prod(data.shape)

    def raster() -> Chain:
        return Chain(samplers.positions(size), timesteps.linear(size))

    return Method(
        data,
        model=model,
        process=processes.raster(vocab),
        parameterization=parameterizations.logits(parameterizations.thousandths, vocab),
        loss=losses_discrete.teacher_forced,
        times=time_sampling.none(),
        chains={"raster": raster},
        preview="raster",
        optimizer=adamw,
        likelihoods={"exact": likelihoods.exact},
    )


build = composed(method)
