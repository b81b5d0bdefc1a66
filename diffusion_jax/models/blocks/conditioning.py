"""What networks are told beside x and the time: a dictionary of arrays, each with the batch first.

The names in use: "label", int [B]; "noise_level", float [B]; "interval", float [B], how far a flow map is asked to go
(`models.two_times`); "tokens", float [B, L, D], an encoded text, and "token_mask", bool [B, L], true where there is
text; "low_res", float [B, h, w, C]; "hint" and "beside", float [B, H, W, C], as are those that `maps` of a network of
tokens names; "guidance_scale", float [B], 1 for none; "pooled", float [B, P], a text as one vector; "time_ids", float
[B, K], sizes in pixels and a crop (`SizesEmbedding`); "text_embedding" and "image_embedding", float [B, D], a text's
and a picture's one vector, NaN for none where an `OptionalVectorEmbedding` hears it; "vector", float [B, D], such as
an embedded picture (`VectorEmbedding`, `GivenEmbedding`).

What is one vector an example is added to the embedding of the time by modules of this file, `module(value [B, ...],
features) -> [B, features]`. A module that makes one vector of several conditions names them in its `hears`, and is
given all, in that order.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Activation
from diffusion_jax.models.blocks.layers import TimeEmbedding, cosinusoid, dense, embedding_mlp, sinusoid
from diffusion_jax.models.ops.attention import by_xla, multi_head


class LabelEmbedding(nn.Module):
    """A learned vector for each label: int [B] -> float32 [B, features].

    Attributes:
      rows: labels are 0 to rows - 1. Where labels may be withheld, the last row stands for that. A label beyond
        makes its example NaN.
      embedding_init: of the vectors; of unit variance by default, like the input. DiT's are of 0.02.
    """

    rows: int
    embedding_init: nn.initializers.Initializer = nn.initializers.normal(1.0)

    @nn.compact
    def __call__(self, label: jax.Array, features: int) -> jax.Array:
        table = self.param("embedding", self.embedding_init, (self.rows, features), jnp.float32)
        # Negative labels, which NumPy would count from the end, are beyond too.
        return jnp.take(table, jnp.where(label < 0, self.rows, label), axis=0, mode="fill")


class NumberEmbedding(nn.Module):
    """A number as the time is told: float [B] -> float32 [B, features].

    For the noise level of a low-resolution image in a cascade (Ho et al. 2022, section 4), say.

    Attributes:
      scale: multiplies the number first. Numbers are told apart on a range of 0 to 1000: 1000 is for those from 0
        to 1.
      width: of the sinusoid; None for a quarter of `features`, which is a multiple of 4 then.
      activation: between the dense layers.
    """

    scale: float = 1.0
    width: int | None = None
    activation: Activation = nn.swish

    @nn.compact
    def __call__(self, value: jax.Array, features: int) -> jax.Array:
        width = self.width or features // 4
        embed = TimeEmbedding(width, cosinusoid, self.activation, features, name="embedding")
        return embed(self.scale * value)


class OptionalNumberEmbedding(nn.Module):
    """A number that may be withheld: float [B] -> float32 [B, features]; NaN, for none, has a vector of its own.

    Attributes:
      scale: as of `NumberEmbedding`.
    """

    scale: float = 1.0

    @nn.compact
    def __call__(self, value: jax.Array, features: int) -> jax.Array:
        none = self.param("none", nn.initializers.normal(1.0), (features,), jnp.float32)
        known = jnp.isfinite(value)
        number = NumberEmbedding(self.scale, name="number")(jnp.where(known, value, 0.0), features)
        return jnp.where(known[:, None], number, none)


class OptionalVectorEmbedding(nn.Module):
    """A vector that may be withheld: float [B, D] -> float32 [B, features]; one with NaN has a vector of its own.

    Of entries of about unit size, such as what an encoder makes of a picture.
    """

    @nn.compact
    def __call__(self, value: jax.Array, features: int) -> jax.Array:
        none = self.param("none", nn.initializers.normal(1.0), (features,), jnp.float32)
        known = jnp.isfinite(value).all(axis=-1, keepdims=True)
        told = nn.Dense(features, dtype=jnp.float32, name="dense")(jnp.where(known, value, 0.0))
        return jnp.where(known, told, none)


class GuidanceEmbedding(nn.Module):
    """The scale of guidance as guided distillation tells it: float [B] -> float32 [B, features].

    A dense layer without bias of the sinusoid of 1000 (g - 1), as latent consistency models have it. It starts at 0:
    a student starts as its teacher, whatever the scale.

    Attributes:
      width: of the sinusoid, even.
    """

    width: int = 256

    @nn.compact
    def __call__(self, scale: jax.Array, features: int) -> jax.Array:
        zero = nn.initializers.zeros_init()
        h = sinusoid(1000 * (scale - 1), self.width)
        return nn.Dense(features, use_bias=False, dtype=jnp.float32, kernel_init=zero, name="dense")(h)


class VectorEmbedding(nn.Module):
    """A vector through two dense layers with swish between: float [B, D] -> float32 [B, features]."""

    @nn.compact
    def __call__(self, vector: jax.Array, features: int) -> jax.Array:
        return embedding_mlp(vector.astype(jnp.float32), features, nn.swish)


class LinearEmbedding(nn.Module):
    """A vector through one dense layer: float [B, D] -> float32 [B, features]."""

    @nn.compact
    def __call__(self, vector: jax.Array, features: int) -> jax.Array:
        return dense(features, jnp.float32, "dense")(vector.astype(jnp.float32))


class GivenEmbedding(nn.Module):
    """A vector that is an embedding already: float [B, features] -> float32 [B, features].

    Raises:
      InputError: it is of another width.
    """

    def __call__(self, vector: jax.Array, features: int) -> jax.Array:
        if vector.shape[-1] != features:
            raise InputError(f"a vector of {vector.shape[-1]} features; this network takes {features}")
        return vector.astype(jnp.float32)


class TokensEmbedding(nn.Module):
    """A whole text as one vector, by attention (Saharia et al. 2022): float [B, L, D] -> float32 [B, features].

    LayerNorm, attention whose one query is made of the tokens' mean plus a learned position, and whose keys are made
    of this and of all tokens; dense; LayerNorm. In float32. No mask reaches it: IF has none.

    Attributes:
      heads: of attention, a divisor of D.
    """

    heads: int = 64

    @nn.compact
    def __call__(self, tokens: jax.Array, features: int) -> jax.Array:
        width = tokens.shape[-1]
        tokens = _layer_norm("norm_0")(tokens.astype(jnp.float32))
        position = self.param("position", nn.initializers.normal(width**-0.5), (1, width), jnp.float32)
        first = tokens.mean(1, keepdims=True) + position[None]
        rows = jnp.concatenate([first, tokens], axis=1)
        query, key, value = (
            dense(width, jnp.float32, name)(source)
            for name, source in (("query", first), ("key", rows), ("value", rows))
        )
        pooled = multi_head(query, key, value, self.heads, by_xla)[:, 0]
        return _layer_norm("norm_1")(dense(features, jnp.float32, "out")(pooled))


class MeanTokensEmbedding(nn.Module):
    """The mean of a text's tokens through two dense layers: -> float32 [B, features].

    It hears "tokens", float [B, L, D], and "token_mask", bool [B, L]: tokens that the mask withholds are not read. A
    text of no tokens has the mean 0.
    """

    hears: ClassVar[tuple[str, ...]] = ("tokens", "token_mask")

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array, features: int) -> jax.Array:
        total = jnp.where(mask[..., None], tokens.astype(jnp.float32), 0.0).sum(1)
        mean = total / jnp.maximum(mask.sum(1, keepdims=True), 1)
        return embedding_mlp(mean, features, nn.swish)


def _layer_norm(name):
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=jnp.float32, name=name)


class SizesEmbedding(nn.Module):
    """A pooled text and the sizes that an image had (Podell et al. 2023, section 2.2): -> float32 [B, features].

    MLP([pooled, sinusoids]), with a sinusoid of `width` features, cosines first, of each of the time ids.

    Attributes:
      width: of a sinusoid, even.
      inputs: P + K * width for "pooled" [B, P] and "time_ids" [B, K]; None for any.

    Raises:
      InputError: what is told has another width than `inputs`.
    """

    width: int = 256
    inputs: int | None = None

    hears: ClassVar[tuple[str, ...]] = ("pooled", "time_ids")

    @nn.compact
    def __call__(self, pooled: jax.Array, time_ids: jax.Array, features: int) -> jax.Array:
        batch, ids = time_ids.shape
        told = pooled.shape[-1] + ids * self.width
        if self.inputs not in (None, told):
            raise InputError(
                f"pooled text of {pooled.shape[-1]} features and {ids} time_ids of {self.width} make {told}; "
                f"this network takes {self.inputs}"
            )
        sinusoids = cosinusoid(time_ids.reshape(-1), self.width).reshape(batch, -1)
        h = jnp.concatenate([pooled.astype(jnp.float32), sinusoids], axis=-1)
        return embedding_mlp(h, features, nn.swish)


def _hears(name, module):
    return getattr(module, "hears", (name,))


def conditions_of(embed: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The conditions that `embed` makes vectors of: what a module is named by, or all that it `hears`."""
    return tuple(condition for name, module in embed.items() for condition in _hears(name, module))


def embedded(embed: Mapping[str, nn.Module], cond: Mapping[str, jax.Array] | None, features: int):
    """The sum of what `embed` makes of the entries of `cond` that it names, [B, features]; 0 if it names none."""
    told = cond or {}
    return sum(module(*(told[one] for one in _hears(name, module)), features) for name, module in embed.items())


def check_names(cond: Mapping[str, jax.Array] | None, names: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise `InputError` unless the network is told exactly what it listens to; `optional` may be missing."""
    given, names, known = set(cond or {}), set(names), {*names, *optional}
    for name in sorted(names - given):
        raise InputError(f"this network needs the condition {name!r}; it was given {_listed(given)}")
    for name in sorted(given - known):
        raise InputError(f"this network knows no condition {name!r}; it takes {_listed(known)}")


def _listed(names) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"


def apart(cond: Mapping[str, jax.Array] | None, name: str, who: str = "this network"):
    """(the condition `name`, the others or None where there are none); `InputError` where it is not told."""
    cond = cond or {}
    if name not in cond:
        raise InputError(f"{who} needs the condition {name!r}; it was given {', '.join(cond) or 'none'}")
    return cond[name], {other: value for other, value in cond.items() if other != name} or None
