"""What stands between unCLIP's networks (Ramesh et al. 2022): encoders of texts, a prior of embeddings, a decoder.

The prior's chain runs on standardised embeddings. Its sample is scaled back (`restoring`), may be the best of several
(`stages.best_of` by `agreement`), and is told to the decoder, by projections of it (`projected`) or with noise
(`renoised`). Either gives what withholds it as well, under the names "null_...". What the decoder draws is shown to
the next network (`shown`), whose last step may be another's (`samplers.in_turn`).
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from diffusion_jax.core.protocols import EncodeTime, Gather, Resize, SampleFn, Tree
from diffusion_jax.diffusion.noising import LEVEL, Noising
from diffusion_jax.diffusion.stages import NULL, Shape, Stage, nulls

IMAGE, TEXT, VECTOR = "image_embedding", "text_embedding", "vector"
READ = (TEXT, "tokens", "token_mask")  # of a text
STATISTICS = ("clip_mean", "clip_std")


def restored(params: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """Embeddings, of standardised ones [B, D]: x clip_std + clip_mean, of the prior's parameters."""
    return x * params["clip_std"] + params["clip_mean"]


def restoring(draw: SampleFn, gather: Gather = lambda params: params) -> SampleFn:
    """The prior's chain, its samples restored; its parameters hold "clip_mean" and "clip_std" too, [D].

    `gather` gathers these, where they are spread over devices.
    """

    def restoring_fn(params, key, *cond):
        statistics = gather({name: params[name] for name in STATISTICS})
        return restored(statistics, draw(params, key, *cond))

    return restoring_fn


def agreement(cond: Mapping[str, jax.Array]) -> jax.Array:
    """A score [B] for `stages.best_of`: the dot product of the embeddings of image and text (section 2.2)."""
    return (cond[IMAGE] * cond[TEXT]).sum(-1)


def projected(
    name: str, project: Callable[..., Mapping[str, Tree]], needs: Mapping[str, Shape], gives: Mapping[str, Shape]
) -> Stage:
    """Karlo's `models.encoders.text_projection` as a stage: what the decoder is told of image and text.

    Withheld are both: a learned embedding stands for the image, and the encoded empty text for the text.

    Args:
      name: of the stage.
      project: `(params, image_embedding, text_embedding, tokens, token_mask, withheld [B]) -> entries`.
      needs: "image_embedding", "text_embedding", "tokens", "token_mask", and the last three of the empty text, as
        "null_text_embedding" and so on.
      gives: "tokens", "token_mask" and "vector"; the stage gives them as "null_tokens" and so on too.
    """

    def run(params, keys, cond):
        image = cond[IMAGE]
        nobody, everybody = jnp.zeros(len(image), bool), jnp.ones(len(image), bool)
        told = project(params, image, *(cond[entry] for entry in READ), nobody)
        null = project(params, image, *(cond[NULL + entry] for entry in READ), everybody)
        return {**told, **nulls(null)}

    return Stage(name, run, needs, {**gives, **nulls(gives)})


def renoised(name: str, noising: Noising, encode: EncodeTime, features: int) -> Stage:
    """Stable unCLIP's "vector", [2 D]: an embedding with noise at the index "noise_level", and a wave of the index.

    Noise is added to the standardised embedding: parameters are its "mean" and "std", [D]. What withholds it is 0.

    Args:
      name: of the stage.
      noising: the table.
      encode: the wave, `(level [B], D) -> [B, D]`; theirs has cosines first.
      features: D.
    """

    def run(params, keys, cond):
        standard = (cond[IMAGE] - params["mean"]) / params["std"]
        noisy = noising.corrupt(keys, standard, cond[LEVEL]) * params["std"] + params["mean"]
        vector = jnp.concatenate([noisy, encode(cond[LEVEL], features).astype(noisy.dtype)], axis=-1)
        return {VECTOR: vector, NULL + VECTOR: jnp.zeros_like(vector)}

    both = {VECTOR: (2 * features,), NULL + VECTOR: (2 * features,)}
    return Stage(name, run, {IMAGE: (features,), LEVEL: ()}, both)


def shown(name: str, enlarge: Resize, entry: str, small: Shape, size: Sequence[int]) -> Stage:
    """The decoder's picture as the next network sees it: "beside", of the size of its own, clipped to [-1, 1] before.

    Args:
      name: of the stage.
      enlarge: Karlo's is `resizing.bicubic`.
      entry: the picture.
      small: its shape, (h, w, C).
      size: (H, W).
    """

    def run(params, keys, cond):
        return {"beside": enlarge(jnp.clip(cond[entry], -1, 1), size)}

    return Stage(name, run, {entry: small}, {"beside": (*size, small[-1])})
