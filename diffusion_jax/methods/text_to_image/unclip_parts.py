"""unCLIP's prior and decoder (Ramesh et al. 2022) around any CLIP and any networks.

A prior makes the embedding of a picture from a text, a decoder the picture from the embedding. Both learn what a CLIP
says, which their runs hold.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.core import resizing
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.protocols import Hold, Network, OfTime, SampleCondition, Tree
from diffusion_jax.data import conditions
from diffusion_jax.diffusion import guidance, losses, schedules, stages
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.stages import Shape, Stage
from diffusion_jax.diffusion.unclip import IMAGE, TEXT
from diffusion_jax.methods import continuous, guided, staged
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.methods.compose import Data, Method
from diffusion_jax.methods.staged import MakeStages, Pipeline
from diffusion_jax.methods.text_to_image.readers import MASK, TOKENS, Clip
from diffusion_jax.training.experiment import Experiment

# Names of stages, and of what runs hold.
ENCODER, PRIOR, SCALING, DECODER = "clip", "prior", "scaling", "decoder"
LOOKED_AT = 1024  # pictures by whose embeddings the prior's are standardised


# ---- The decoder.


def told_apart(
    plain: Method, untold: Mapping[str, Any], withheld: float, withheld_text: float, usual: float
) -> Method:
    """A decoder that is not told the picture's embedding, and the text, of independent shares (section 2.1).

    Args:
      plain: a method of pictures, told "image_embedding", of which NaN says nothing, and the entries of a text.
      untold: what stands for no text, an entry each.
      withheld, withheld_text: shares of the examples that are not told the picture's, and the text's.
      usual: the scale of guidance where none is asked for; 1 is as learned. It withholds both.
    """
    no_text, no_picture = guidance.replacing(**untold), guidance.replacing(**{IMAGE: jnp.nan})
    independent = plain._replace(
        loss=lambda *parts: losses.withholding(plain.loss(*parts), no_text, withheld_text), preview="ddim"
    )
    trained = guided.classifier_free(independent, no_picture, withheld)
    nothing = guidance.replacing(**{IMAGE: jnp.nan}, **untold)
    return trained._replace(guide=guided.classifier_free(plain, nothing, usual=usual).guide)


def decoder(
    config: ConfigDict,
    clip: Clip,
    hold: Hold,
    images: Data,
    method: Method,
    untold: Mapping[str, Any],
    split: str = "test",
) -> Experiment:
    """A decoder of embeddings as an experiment.

    Samples are told a picture, of which they are variations, or a text, "prompt", or both; pictures are by default
    those of `images`, of `split`.

    Args:
      config: values, with the sections of `compose.base_config`.
      clip: what says the embeddings.
      hold: `() -> {"clip": its parameters}`.
      images: pictures and texts (`captioned.told`), as CLIP sees them.
      method: of its pictures, which are means of blocks of those (`told_apart`).
      untold: as of `told_apart`.
      split: of the pictures that are shown by default.
    """
    low = tuple(method.data.shape)
    embedding = jax.ShapeDtypeStruct((clip.size,), jnp.float32)
    told = {IMAGE: embedding, **{name: clip.reader.told[name] for name in untold}}

    def text(params, ids, mask):
        says = clip.reader.says(params, ids, mask)
        return {name: says[name] for name in untold}

    def encode(held, keys, x0):
        said = text(held[ENCODER], x0["ids"], x0["mask"])
        return resizing.means(x0["image"], low[:2]), {IMAGE: clip.seen(held[ENCODER], x0["image"]), **said}

    def encoded(params, keys, cond):
        """What is not told: a picture of NaN, and a text without an end."""
        known = cond["mask"].any(axis=-1)
        said = text(params, cond["ids"], cond["mask"])
        said = {name: jnp.where(expand(known, x), x, jnp.asarray(untold[name], x.dtype)) for name, x in said.items()}
        return {IMAGE: clip.seen(params, cond["image"]), **said}

    length = (clip.reader.tokenizer.length,)
    given = {"image": tuple(images.shape["image"]), "ids": length, "mask": length}
    before = Stage(ENCODER, encoded, given, {name: tuple(x.shape) for name, x in told.items()})
    pipeline = Pipeline(hold, encode, told, given, DECODER, "image_of_embedding", "image_of_embedding", (before,))
    data = images._replace(shape=low, sample_condition=_pictures_or_texts(images, clip, split))
    return staged.compose(config, pipeline, method._replace(data=data))


def _pictures_or_texts(images: Data, clip: Clip, split: str) -> SampleCondition:
    shape, length = tuple(images.shape["image"]), clip.reader.tokenizer.length

    def default(num):
        source = images.source(split)
        return {"image": images.clean(first_rows(images, source, min(num, len(source))))["image"]}

    texts = conditions.prompts(clip.reader.tokenizer.encode, [""])
    pictures = conditions.pictures(default, image=shape)

    def sample_condition(num, given):
        others = {name: x for name, x in given.items() if name != "prompt"}
        if "prompt" in given:
            (text,) = texts(num, {"prompt": given["prompt"]})
        else:
            text = {"ids": np.zeros((num, length), np.int32), "mask": np.zeros((num, length), bool)}
        if "prompt" in given and not others:
            return ({**text, "image": np.full((num, *shape), np.nan, np.float32)},)
        return ({**text, **pictures(num, others)[0]},)

    return sample_condition


# ---- The prior, and everything after it.


def prior(
    data: Data,
    clip: Clip,
    network: Network,
    withheld: float,
    usual: float,
    prediction: Callable[[Schedule, OfTime], Parameterization],
) -> Method:
    """Diffusion of standardised embeddings. Of withheld texts all entries are 0.

    Args:
      data: pictures and texts.
      clip: whose embeddings they are.
      network: told "text_embedding", "tokens" and "token_mask".
      withheld: share of the examples that are not told their text.
      usual: the scale of guidance where none is asked for; 1 is as learned.
      prediction: `(schedule, time) -> Parameterization`, what the network says.
    """
    plain = continuous.model_of(data._replace(shape=(clip.size,)), network, schedules.cosine(), prediction)
    return guided.classifier_free(plain, guidance.replacing(**{TEXT: 0.0, TOKENS: 0.0, MASK: False}), withheld, usual)


def prior_pipeline(clip: Clip, hold: Hold, draws: int, after: MakeStages, result: str) -> Pipeline:
    """What stands around a prior: a text is encoded, and of several draws the one nearest to the text stays.

    Args:
      clip: what says the embeddings.
      hold: `() -> {"clip", "scaling", ...}`, with what the stages after it hold.
      draws: of the prior.
      after: from "image_embedding", and the entries of the text, to the result.
      result: the entry that is drawn.
    """
    told = dict(clip.reader.told)
    vector = {name: (clip.size,) for name in ("embedding", "mean", "std", IMAGE, TEXT)}

    def of(*names: str) -> dict[str, Shape]:
        return {name: vector[name] for name in names}

    def encode(held, keys, x0):
        scale = held[SCALING]
        z = (clip.seen(held[ENCODER], x0["image"]) - scale["mean"]) / scale["std"]
        return z, clip.reader.says(held[ENCODER], x0["ids"], x0["mask"])

    def scaling(params, keys, cond):
        return {name: jnp.broadcast_to(x, cond[TEXT].shape) for name, x in params.items()}

    def unscaled(cond):
        return cond["embedding"] * cond["std"] + cond["mean"]

    def nearest(stage):
        def score(cond):
            return jnp.sum(cond[TEXT] * unscaled(cond), axis=-1)

        return stages.best_of(draws, score, stage, of(TEXT, "mean", "std"))

    reading = clip.reader.stage(ENCODER)
    back = stages.arrays("unscaled", lambda cond: {IMAGE: unscaled(cond)}, of("embedding", "mean", "std"), of(IMAGE))
    return Pipeline(
        hold,
        encode,
        told,
        reading.needs,
        PRIOR,
        "embedding",
        result,
        (reading, Stage(SCALING, scaling, of(TEXT), of("mean", "std"))),
        lambda request: (back, *after(request)),
        nearest,
    )


def statistics(clip: Clip, params: Tree, images: Data) -> dict[str, np.ndarray]:
    """{"mean", "std"}, float32 [D], of the embeddings of the first pictures to train with."""
    batch = first_rows(images, images.source("train"), LOOKED_AT)
    found = np.asarray(jax.jit(clip.seen)(params, images.clean(batch)["image"]))
    return {"mean": found.mean(axis=0), "std": found.std(axis=0)}
