"""Priors over the codes of a run: an autoregressive model of indices, whose draws the run's decoder shows.

The run is read once, when training begins, and held in the work directory. Its method is that of the config, with the
values of the section `codes`, so a prior's work directory can be moved without the run's.
"""

import functools
from collections.abc import Mapping
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
from diffusion_jax.core.protocols import Hold, Tree
from diffusion_jax.methods import latent, pixelcnn, pixels, runs
from diffusion_jax.methods.autoencoders import opened
from diffusion_jax.methods.autoencoders.compose import Autoencoding, Tokens
from diffusion_jax.methods.compose import Data, Method, base_config, compose
from diffusion_jax.methods.latent import FirstStage
from diffusion_jax.training import held
from diffusion_jax.training.experiment import Experiment, SampleRequest

STAGE, ABOVE = "first_stage", "above"  # names of what is held


def config_digits() -> Config:
    """Values of a prior over codes of the digits."""
    config = pixelcnn.with_small_network(pixels.with_shape(base_config(), (8, 8, 1)))
    config.model.update(features=64, head_features=128, layers=3, first_side=3, token_features=16, dropout=0.4)
    config.train.batch_size = 64
    return config


def with_codes(config: Config, stage: Config) -> Config:
    """`config` with the run whose codes are learned, and the values of its network: those of `stage.model`."""
    config.codes = stage.model
    config.codes.run = values.text("", "work directory of the run whose codes are learned")
    return config


def with_above(config: Config) -> Config:
    """`config` of a prior over lower codes, with the run of the prior over the upper ones and its values."""
    config.above = config_digits().model
    config.above.run = values.text("", "work directory of the prior over the upper codes")
    return config


def of_section(config: ConfigDict, name: str) -> Any:
    """`config` as a page reads it whose `config.model` is the section `name`."""
    return SimpleNamespace(model=config[name], data=config.data, train=config.train)


def of_codes(stage: Autoencoding, data: Data, level: str | None = None) -> Data:
    """`data` of images as that of a prior: its shape is that of their indices, of one `level` of several."""
    shapes = _shapes(stage)
    return data._replace(shape=shapes if level is None else shapes[level])


def vocab(stage: Autoencoding) -> int:
    """How many codes there are."""
    return _tokens(stage).vocab


def flat(config: ConfigDict, stage: Autoencoding, method: Method) -> Experiment:
    """A prior over the only codes of a run.

    Args:
      config: values, as `pixelcnn.with_network` and `with_codes` name them.
      stage: the run's method.
      method: the prior's, of tokens (`pixelcnn.method`), on data of `of_codes`.
    """

    def encode(holding, keys, x0):
        return _kept(stage, holding[STAGE], x0), {}

    def decode(holding, indices, told):
        params = holding[STAGE]
        return stage.decode(params, _tokens(stage).decoded(params, _known(indices, stage))).mean

    return latent.compose_within(config, FirstStage(held_of(config.codes.run, stage), encode, decode), method)


def upper(config: ConfigDict, stage: Autoencoding, method: Method) -> Experiment:
    """A prior over the upper codes of a run of two levels. Its samples are the indices, as levels of grey.

    Arguments as of `flat`, of the level "top".
    """

    def encode(holding, keys, x0):
        return _kept(stage, holding[STAGE], x0)["top"], {}

    def decode(holding, indices, told):
        return (_known(indices, stage) / max(1, vocab(stage) - 1)).astype(jnp.float32)[..., None]

    return latent.compose_within(config, FirstStage(held_of(config.codes.run, stage), encode, decode), method)


def lower(config: ConfigDict, stage: Autoencoding, method: Method, above: Method) -> Experiment:
    """A prior over the lower codes of a run of two levels, told the upper ones; it draws both, and makes pictures.

    Args:
      config, stage: as of `flat`, and `with_above`.
      method: as of `flat`, of the level "bottom"; its network is told {"top": map}, the vectors of the upper codes,
        enlarged to the places of the lower ones.
      above: the method that `upper` has, whose run draws the upper codes.
    """
    shapes, decoded = _shapes(stage), _tokens(stage).decoded
    rows, columns = (low // up for low, up in zip(shapes["bottom"], shapes["top"], strict=True))

    def hold():
        holding = held_of(config.codes.run, stage)()
        return {**holding, ABOVE: _prior_above(config.above.run, holding[STAGE], above)}

    def vectors(params, level, indices):
        others = {name: jnp.zeros((len(indices), *shape), jnp.int32) for name, shape in shapes.items()}
        return decoded(params, {**others, level: indices})[level]

    def mapped(params, top):
        return {"top": vectors(params, "top", top).repeat(rows, axis=1).repeat(columns, axis=2)}

    def encode(holding, keys, x0):
        kept = _kept(stage, holding[STAGE], x0)
        return kept["bottom"], mapped(holding[STAGE], kept["top"])

    def decode(holding, indices, told):
        params = holding[STAGE]
        below = vectors(params, "bottom", _known(indices, stage))
        return stage.decode(params, {"bottom": below, "top": told["top"][:, ::rows, ::columns]}).mean

    draw = compose(config, above).sampling.samplers["raster"]

    def tell(holding, keys):
        return mapped(holding[STAGE], draw(SampleRequest(len(keys)))(holding[ABOVE], rng.each(keys, 1)))

    params = jax.eval_shape(stage.init, rng.root(0))
    top = jax.ShapeDtypeStruct((1, *shapes["top"]), jnp.int32)
    told = {
        name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in jax.eval_shape(mapped, params, top).items()
    }
    return latent.compose_within(config, FirstStage(hold, encode, decode, tell, told), method)


def held_of(folder: str, stage: Autoencoding) -> Hold:
    """`() -> {"first_stage": params}`, the averaged parameters of the newest checkpoint of the run in `folder`.

    It raises `InputError` where there is no such run, it has no codes, or it is another than `stage`.
    """

    @functools.cache
    def read() -> Mapping[str, Any]:
        run = runs.opened(folder, "--config.codes.run", "run of codes")
        found = run.experiment.method
        if not isinstance(found, Autoencoding) or found.tokens is None:
            raise InputError(f"the run in {folder} has no codes to learn; train one with configs/vqvae.py, say")
        if found.data.example != stage.data.example:
            raise InputError(f"the run in {folder} encodes other data; give both the same data.shape")
        params = run.read()
        runs.check_alike(params, jax.eval_shape(stage.init, rng.root(0)), folder, "codes")
        return {STAGE: params}

    return read


def _prior_above(folder: str, first_stage: Tree, above: Method) -> Tree:
    """The parameters of the prior over upper codes in `folder`, which must be of the codes of `first_stage`."""
    run = runs.opened(folder, "--config.above.run", "prior over the upper codes")
    holding = held.load(Path(folder), run.experiment.task.held)
    if STAGE not in holding or opened.digest(holding[STAGE]) != opened.digest(first_stage):
        raise InputError(
            f"the prior in {folder} was not trained on the codes of codes.run as it is now; train it on them again"
        )
    params = run.read()
    shown = jnp.zeros((1, *above.data.shape), jnp.int32)
    wanted = jax.eval_shape(lambda key: above.model.init(key, shown, jnp.zeros(1))["params"], rng.root(0))
    runs.check_alike(params, wanted, folder, "above")
    return params


def _tokens(stage: Autoencoding) -> Tokens:
    assert stage.tokens is not None
    return stage.tokens


def _kept(stage: Autoencoding, params: Tree, x0: Tree) -> Tree:
    """The indices of x0. They draw nothing: a key is for the training of a codebook alone."""
    return stage.code(params, rng.per_example(rng.root(0), jnp.arange(len(x0))), x0).kept


def _shapes(stage: Autoencoding) -> Any:
    """The shape of an example's indices, or those of each level."""
    x0 = jax.ShapeDtypeStruct((1, *stage.data.shape), jnp.float32)
    params = jax.eval_shape(stage.init, rng.root(0))
    kept = jax.eval_shape(lambda params, x0: _kept(stage, params, x0), params, x0)
    return jax.tree.map(lambda x: x.shape[1:], kept)


def _known(indices: jax.Array, stage: Autoencoding) -> jax.Array:
    """Indices of a film, where those that are not drawn yet are 0."""
    return jnp.where(indices < vocab(stage), indices, 0)
