"""PixelSNAIL (Chen et al. 2018): convolutions of what is near, and causal attention to all that came before."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.autoregressive.layers import Grouped, Heard, Told, halves, neighbours
from diffusion_jax.models.autoregressive.raster import Raster
from diffusion_jax.models.blocks.layers import Dropout, dense

BEFORE = ((-1, -1), (-1, 0), (-1, 1), (0, -1))  # the row above, three wide, and the left neighbour: 2x3
CORNER = ((-1, -1), (-1, 0), (0, -1))  # with the pixel itself, 2x2


def strictly_causal(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention to earlier places alone: [B, N, heads, d], the same, and [B, N, heads, e] -> [B, N, heads, e].

    A place does not attend to itself, for its key holds its own token. The first, which has none before it, reads 0.
    The softmax is float32, or float64 where the arrays are.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bnhd,blhd->bhnl", query, key, preferred_element_type=wide) / math.sqrt(query.shape[-1])
    earlier = np.tri(query.shape[1], k=-1, dtype=bool)[None, None]
    # Finite, so that the first place's softmax is one; what it reads is then cut off.
    weights = jnp.where(earlier, jax.nn.softmax(jnp.where(earlier, scores, -1e30)), jnp.zeros_like(scores))
    return jnp.einsum("bhnl,blhe->bnhe", weights.astype(value.dtype), value)


def places(height: int, width: int) -> np.ndarray:
    """Where a pixel stands, [1, H, W, 2]: row and column from -1/2 to 1/2."""
    grid = np.stack(np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij"), axis=-1)
    return grid[None] - 0.5


class GatedResidual(nn.Module):
    """x + a sigmoid(b), where (a, b) is a 2x2 convolution of elu of another one: [B, H, W, C] -> the same.

    Attributes:
      groups: channels of tokens, a divisor of C.
      dropout: rate in [0, 1), between the two.
      dtype: of products.
    """

    groups: int
    dropout: float
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, told: Told) -> jax.Array:
        features = x.shape[-1]

        def corner(h, width, name):
            own = Grouped(width, self.groups, self.dtype, name=f"{name}_own")(h)
            return neighbours(width, CORNER, self.dtype, name)(h) + own

        h = nn.elu(corner(nn.elu(x), features, "conv_0"))
        h = Dropout(self.dropout, name="dropout")(h, told.dropout_keys)
        h = corner(h, 2 * features, "conv_1") + Heard(2 * features, self.dtype, name="told")(told)
        a, b = halves(h, self.groups)
        return x + a * nn.sigmoid(b)


class CausalAttention(nn.Module):
    """h and what it reads of all earlier pixels, gated: [B, H, W, C] -> the same.

    Keys and values are of the tokens' vectors, h and the place; queries of h and the place.

    Attributes:
      heads: a divisor of C, and a multiple of `groups`: each belongs to one.
      key_features: of a head's keys and queries.
      groups: channels of tokens.
      dtype: of products.
    """

    heads: int
    key_features: int
    groups: int
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, h: jax.Array) -> jax.Array:
        batch, height, width, features = h.shape
        asked = self.heads * self.key_features
        place = jnp.broadcast_to(places(height, width).astype(self.dtype), (batch, height, width, 2))
        source = jnp.concatenate([x, h, place], axis=-1)
        query = Grouped(asked, self.groups, self.dtype, name="query")(h)
        query = query + dense(asked, self.dtype, "query_place")(place)
        key, value = (dense(n, self.dtype, name)(source) for n, name in ((asked, "key"), (features, "value")))
        by_head = (y.reshape(batch, height * width, self.heads, -1) for y in (query, key, value))
        read = strictly_causal(*by_head).reshape(h.shape)
        own = Grouped(2 * features, self.groups, self.dtype, name="own")(nn.elu(h))
        a, b = halves(own + Grouped(2 * features, self.groups, self.dtype, name="read")(nn.elu(read)), self.groups)
        return h + a * nn.sigmoid(b)


class PixelSNAIL(Raster):
    """A network like PixelSNAIL's (Chen et al. 2018, figure 3): blocks of gated 2x2 convolutions, then attention.

    Convolutions see what is near, to the left and above; attention sees all that came before, from the first block
    on. In place of the paper's mixtures of logistics it says logits of tokens, so channels are groups as in PixelCNN;
    elu is not concatenated with that of -x, and weights are not normalised.

    Attributes:
      blocks: how many.
      repeats: gated convolutions in a block.
      heads: of attention, a divisor of `features` and a multiple of the channels of tokens. Memory grows with
        heads (H W)^2.
      key_features: of a head's keys.

    Other fields and the call as of `Raster`; `InputError` also for heads that do not divide so.
    """

    blocks: int = 4
    repeats: int = 4
    heads: int = 4
    key_features: int = 16

    def body(self, x: jax.Array, groups: int, told: Told) -> jax.Array:
        if self.features % self.heads or self.heads % groups:
            raise InputError(
                f"{self.heads} heads of attention: take a divisor of the {self.features} features that is a multiple "
                f"of the {groups} channels of a pixel"
            )
        h = neighbours(self.features, BEFORE, self.dtype, "first")(x)
        if groups > 1:
            h = h + Grouped(self.features, groups, self.dtype, strict=True, name="first_own")(x)
        for i in range(self.blocks):
            for j in range(self.repeats):
                h = GatedResidual(groups, self.dropout, self.dtype, name=f"residual_{i}_{j}")(h, told)
            attention = CausalAttention(self.heads, self.key_features, groups, self.dtype, name=f"attention_{i}")
            h = attention(x, h)
        return h
