"""CLIP (Radford et al. 2021): texts and pictures in one space, where a picture lies next to its own text."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Loss
from diffusion_jax.data.captions import WORDS
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.methods.compose import of_batch
from diffusion_jax.models.encoders.clip import CLIP, TextTransformer, VisionTransformer, unit
from diffusion_jax.models.encoders.transformer import gelu
from diffusion_jax.training import averages
from diffusion_jax.training.experiment import Data, Experiment, Optimization, Task
from diffusion_jax.training.optimizers import MakeOptimizer, Optimizer, adam

SCALE, HIGHEST = "log_scale", 4.605170185988092  # a parameter, the logarithm of the logits' scale, and ln 100


def sizes() -> Config:
    """Values of a small CLIP, of digits of 32x32 pixels."""
    return Config(
        features=values.count(64, "features of both transformers, a multiple of heads", 65_536),
        layers=values.count(2, "blocks of each", 256),
        heads=values.count(4, "heads of attention", 1024),
        embedding=values.count(32, "features of the common space", 65_536),
        patch=values.count(8, "pixels of a patch's side", 256),
    )


def network(sizes: ConfigDict, shape: tuple[int, int, int]) -> CLIP:
    """A CLIP of pictures of `shape` and the captions of `data.captions`, of the values of `sizes`.

    Raises:
      InputError: the patches do not tile the picture.
    """
    grid = grid_of(shape, sizes.patch)
    common = dict(
        features=sizes.features,
        hidden=4 * sizes.features,
        layers=sizes.layers,
        heads=sizes.heads,
        projection=sizes.embedding,
        activation=gelu,
    )
    return CLIP(
        TextTransformer(vocab=WORDS.size, positions=WORDS.length, **common),
        VisionTransformer(grid=grid, patch=sizes.patch, **common),
    )


def grid_of(shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """How many patches of a picture of `shape` there are, high and wide; `InputError` where they do not tile it."""
    high, wide, _ = shape
    if high % patch or wide % patch:
        raise InputError(f"patches of {patch} pixels do not tile a picture of {high}x{wide}; take a divisor of both")
    return high // patch, wide // patch


def contrastive(model: CLIP) -> Loss:
    """The symmetric cross-entropy of which text belongs to which picture, among those of the global batch (figure 3).

    The loss of an example is the mean of two: of its text among all texts, given its picture, and the other way
    round. x0 is {"image", "ids", "mask"}; parameters are the model's. "right" is logged, the share of pictures that
    no other text fits better.
    """

    def loss(keys, params, x0, context, *cond):
        picture: Any = model.vision.apply({"params": params["vision"]}, x0["image"])
        text: Any = model.text.apply({"params": params["text"]}, x0["ids"], x0["mask"])
        images, texts = unit(picture.embedding), unit(text.pooled)
        scale = jnp.exp(params[SCALE])
        all_images, all_texts = context.gather((images, texts))
        own = scale * jnp.sum(images * texts, axis=-1)
        # As exact as `own`, which is one of them: TPUs and GPUs would round what they multiply.
        product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        among_texts, among_images = product(scale * images, all_texts.T), product(scale * texts, all_images.T)
        value = sum(jax.nn.logsumexp(logits, axis=-1) - own for logits in (among_texts, among_images)) / 2
        return value, {"right": own >= among_texts.max(axis=-1) - 1e-4}

    return loss


def bounded(optimizer: Optimizer) -> Optimizer:
    """`optimizer`, after whose updates the scale of the logits is at most 100 (section 2.5).

    The parameter itself stays there. A bound in the loss would leave it no gradient by which to come back.
    """
    inner = optimizer.transformation

    def update(gradients, state, params):
        updates, state = inner.update(gradients, state, params)
        return {**updates, SCALE: jnp.minimum(updates[SCALE], HIGHEST - params[SCALE])}, state

    return optimizer._replace(transformation=optax.GradientTransformation(inner.init, update))


def build(config: ConfigDict, data: Data, model: CLIP, optimizer: MakeOptimizer = adam) -> Experiment:
    """A CLIP as an experiment; it draws nothing.

    Args:
      config: values, with the sections of `compose.base_config`.
      data: whose x0 is {"image" float [B, H, W, C], "ids" int [B, L], "mask" bool [B, L]}.
      model: of such pictures and texts.
      optimizer: of all its parameters.

    Raises:
      InputError: a batch is computed in parts, of which none would see the others.
    """
    if config.train.accumulate != 1:
        raise InputError(
            f"train.accumulate={config.train.accumulate}: each example of a batch is compared with all others; take 1"
        )
    shown = {name: jnp.zeros((1, *shape), data.example[name].dtype) for name, shape in data.shape.items()}

    def init(key):
        return model.init(key, shown["ids"], jnp.zeros(shown["image"].shape), shown["mask"])["params"]

    return Experiment(
        data,
        Task(init, of_batch(contrastive(model), data), time_sampling.none()),
        Optimization(
            bounded(optimizer(config.train)),
            config.train.ema_decay,
            averages.named(config.train.ema_decays, config.train.ema_profiles),
        ),
    )
