"""Latent diffusion (Rombach et al. 2022): any method, of what a first stage makes of images.

The first stage is a trained run or a published one. Its network is that of the values in `config.first_stage`; its
weights are read when a run begins, and held in the work directory, which can be moved without them. Latents are
encoded as training goes, or were prepared (`diffusion_jax.prepare`). A model draws pictures either way.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import latents
from diffusion_jax.autoencoding.latents import Halves, Scaling, Statistics
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold, Tree
from diffusion_jax.data import latents as kept_latents
from diffusion_jax.data import sources
from diffusion_jax.methods import latent, pixels, runs
from diffusion_jax.methods.autoencoders import first_stages
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.methods.autoencoders.opened import Opened, check_range, digest, opened
from diffusion_jax.methods.compose import Method
from diffusion_jax.models.autoencoders.convolutional import ConvolutionalAutoencoder
from diffusion_jax.training.experiment import Data, Experiment

STAGE, SCALING = "first_stage", "scaling"  # names of what is held
LOOKED_AT = 1024  # images whose latents say how they are scaled, where nothing was prepared


class Stage(NamedTuple):
    """A first stage of some images, without its weights.

    Attributes:
      halves: its encoder and decoder.
      template: shapes and dtypes of its parameters.
      images: the data that it encodes, in [-1, 1].
      shape: of a latent, [h, w, c].
    """

    halves: Halves
    template: Tree
    images: Data
    shape: tuple[int, int, int]


class Latents(NamedTuple):
    """Latents as training data.

    Attributes:
      data: its x0 is what `enter` takes; its shape is that of a latent.
      enter: `(params of the first stage, keys [B], x0) -> z [B, h, w, c]`, a draw, not scaled.
      statistics: `(first stage, its params) -> Statistics`; it may read files, and refuse that first stage.
    """

    data: Data
    enter: Callable[[Tree, jax.Array, Tree], jax.Array]
    statistics: Callable[[Opened, Tree], Statistics]


# `(Statistics of the latents' draws, what the first stage's files say or None) -> Scaling`.
Scale: TypeAlias = Callable[[Statistics, Scaling | None], Scaling]


def with_first_stage(config: Config, sizes: Config) -> Config:
    """`config` with the values of a first stage (`first_stages.sizes`), where its weights are, and where latents."""
    config.first_stage = sizes
    config.first_stage.weights = values.text("", "a run's work directory, or a published first stage: folder or file")
    config.data.latents = values.text("", "folder of prepared latents; without one images are encoded in training")
    return config


def kl(config: ConfigDict, images: Data) -> Stage:
    """The first stage of `config.first_stage` whose latents are drawn (`first_stages.kl`)."""
    network = first_stages.kl(config.first_stage, images)
    return _stage(network, latents.drawn(network), images, {})


def vq(config: ConfigDict, images: Data) -> Stage:
    """The first stage of `config.first_stage` whose latents are quantised by its decoder (`first_stages.vq`)."""
    network = first_stages.vq(config.first_stage, images)
    book = jax.ShapeDtypeStruct((config.first_stage.codes, config.first_stage.dim), jnp.float32)
    halves = latents.quantised(network, lambda params: params["codebook"])
    return _stage(network, halves, images, {"codebook": book})


def _stage(network: ConvolutionalAutoencoder, halves: Halves, images: Data, beside: dict) -> Stage:
    x = jax.ShapeDtypeStruct((1, *images.shape), jnp.float32)
    template = {**jax.eval_shape(network.init, rng.root(0), x)["params"], **beside}
    return Stage(halves, template, images, latents.latent_shape(halves, template, images.shape))


# ---- Latents as data.


def encoded(stage: Stage) -> Latents:
    """Of images that are encoded as training goes."""

    def enter(params, keys, x0):
        return latents.sampled(stage.halves.encode(params, x0), keys)

    def statistics(found, params):
        """Of draws of the first images."""
        source = stage.images.source("train")
        batch = first_rows(stage.images, source, LOOKED_AT)
        check_range(found, stage.images.clean, batch)
        x0 = stage.images.clean(batch)
        keys = rng.per_example(rng.stream(rng.root(0), "statistics"), jnp.arange(len(x0)))
        made = jax.jit(enter)
        parts = [np.asarray(made(params, keys[i : i + 64], x0[i : i + 64])) for i in range(0, len(x0), 64)]
        return latents.statistics(np.concatenate(parts))

    return Latents(stage.images._replace(shape=stage.shape), enter, statistics)


def prepared(stage: Stage, folder: str, flip: bool = False) -> Latents:
    """Of images that were encoded before (`diffusion_jax.prepare`), in `folder`, whose folders are the splits.

    With `flip` those of mirror images are drawn as well.
    """

    def statistics(opened, params):
        found = kept_latents.record(Path(folder) / "train")
        if found.first_stage != digest(params):
            raise InputError(
                f"the latents in {folder} were made by another first stage ({found.about}); give "
                "--config.first_stage.weights the one that made them, or prepare them with this one"
            )
        if (found.image, found.shape) != (tuple(stage.images.shape), stage.shape):
            raise InputError(
                f"the latents in {folder} are {found.shape} of images {found.image}, not {stage.shape} of "
                f"{tuple(stage.images.shape)}; give data.shape as they have it, or prepare others"
            )
        assert found.statistics is not None
        return found.statistics

    data = pixels.latents(stage.images, stage.shape, lambda split: sources.latents(f"{folder}/{split}"), flip)
    return Latents(data, lambda params, keys, z: z, statistics)


def prepared_or_encoded(config: ConfigDict, stage: Stage) -> Latents:
    """`prepared` where `config.data.latents` names a folder, else `encoded`."""
    if config.data.latents:
        return prepared(stage, config.data.latents, config.data.get("flip", False))
    return encoded(stage)


# ---- How they are scaled.


def as_published(statistics: Statistics, published: Scaling | None) -> Scaling:
    """As the first stage's files say; `InputError` where they do not."""
    if published is None:
        raise InputError("the first stage says no scale of its latents; give a published one that does")
    return published


def to_unit(statistics: Statistics, published: Scaling | None) -> Scaling:
    """To a variance of 1 over all entries, by one number (Rombach et al. 2022, appendix G)."""
    return Scaling(1 / statistics.std)


def channels_to_unit(statistics: Statistics, published: Scaling | None) -> Scaling:
    """To a mean of 0 and a variance of 1 of each channel."""
    return Scaling(1 / statistics.channel_std, statistics.channel_mean)


def as_they_are(statistics: Statistics, published: Scaling | None) -> Scaling:
    """Not at all, as latent diffusion has those that are quantised."""
    return Scaling()


# ---- The experiment.


def compose(config: ConfigDict, stage: Stage, known: Latents, method: Method, scale: Scale = to_unit) -> Experiment:
    """A method of latents as an experiment: it is trained on latents, and draws pictures.

    Args:
      config: values, with `with_first_stage`.
      stage: `kl` or `vq`.
      known: `encoded(stage)` or `prepared`.
      method: its data is `known.data`, or made of it.
      scale: of the latents that the method sees.
    """

    def encode(holding, keys, x0):
        return Scaling(**holding[SCALING]).scaled(known.enter(holding[STAGE], keys, x0)), {}

    in_turn = latents.few_at_a_time(stage.halves.decode)

    def decode(holding, z, told):
        return in_turn(holding[STAGE], Scaling(**holding[SCALING]).unscaled(z))

    refused = {name: _no_likelihood for name in method.likelihoods}

    def expected(holding, x0):
        return Scaling(**holding[SCALING]).scaled(stage.halves.encode(holding[STAGE], x0).mean)

    first = latent.FirstStage(
        held_of(config, stage, known, scale), encode, decode, known=expected, shape=tuple(stage.images.shape)
    )
    composed = latent.compose_within(config, first, method)
    return composed._replace(measures=composed.measures._replace(likelihoods=refused))


def held_of(config: ConfigDict, stage: Stage, known: Latents, scale: Scale) -> Hold:
    """`() -> {"first_stage": params, "scaling": {"scale" [C], "shift" [C]}}`; arguments as of `compose`.

    It raises `InputError` where there is no such first stage, it is another than `stage`, or made other latents.
    """

    def hold():
        weights = config.first_stage.weights
        found = opened(weights, "--config.first_stage.weights")
        read = found.read()
        params = {name: part for name, part in read.items() if name in stage.template}  # without its discriminator
        runs.check_alike(params, stage.template, weights, "first_stage")
        scaling = scale(known.statistics(found, read), found.scaling)
        return {STAGE: params, SCALING: {name: _each(x, stage.shape[-1:]) for name, x in scaling._asdict().items()}}

    return hold


def _each(x: Any, channels: tuple[int, ...]) -> np.ndarray:
    """A number of each channel, float32."""
    return np.broadcast_to(np.asarray(x, np.float32), channels).copy()


def _no_likelihood(steps):
    raise InputError(
        "bits of latents are none of images: the first stage's encoder and decoder would have to be paid as well; "
        "leave --likelihood out"
    )
