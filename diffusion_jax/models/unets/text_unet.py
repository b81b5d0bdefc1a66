"""The U-Net of latent diffusion and Stable Diffusion (Rombach et al. 2022): every attention also reads a text."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Activation, Attend, Heads
from diffusion_jax.models.blocks.layers import (
    SAME,
    Dense,
    Downsample,
    LayerContext,
    ResBlock,
    Upsample,
    cosinusoid,
    default_init,
    dense,
    group_norm,
    zero_init,
)
from diffusion_jax.models.ops.attention import by_xla, multi_head
from diffusion_jax.models.unets.adm import heads_always
from diffusion_jax.models.unets.skeleton import Parts, Skeleton, of_level


def _layer_norm(dtype, name):
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class ReadingBlock(nn.Module):
    """Self-attention, attention to the tokens told, gated perceptron, each on a layer norm and with a residual.

    [B, N, C] -> [B, N, C] of `dtype`; tokens are [B, L, D]. The perceptron is dense(a * gelu(b)) with a and b two
    halves of 8 C features and the exact GELU (GEGLU, Shazeer 2020).
    """

    heads: int
    dtype: Any = jnp.float32
    attend: Attend = by_xla

    @nn.compact
    def __call__(self, x: jax.Array, tokens: jax.Array) -> jax.Array:
        features = x.shape[-1]

        def read(h, source, kind):
            query = self._dense(features, f"{kind}_query")(h)
            key, value = (self._dense(features, f"{kind}_{name}")(source) for name in ("key", "value"))
            h = multi_head(query, key, value, self.heads, self.attend)
            return dense(features, self.dtype, f"{kind}_out")(h)

        tokens = tokens.astype(self.dtype)
        h = _layer_norm(self.dtype, "norm_0")(x)
        x = x + read(h, self.first_reads(h, tokens), "self")
        x = x + read(_layer_norm(self.dtype, "norm_1")(x), tokens, "cross")
        h = dense(8 * features, self.dtype, "mlp_in")(_layer_norm(self.dtype, "norm_2")(x))
        value, gate = jnp.split(h, 2, axis=-1)
        return x + dense(features, self.dtype, "mlp_out")(value * nn.gelu(gate, approximate=False))

    def first_reads(self, h: jax.Array, tokens: jax.Array) -> jax.Array:
        """What the first attention reads: the pixels."""
        return h

    def _dense(self, features, name):
        return Dense(features, use_bias=False, dtype=self.dtype, kernel_init=default_init, name=name)


class ListeningBlock(ReadingBlock):
    """`ReadingBlock` both of whose attentions read the tokens: pixels do not see one another."""

    def first_reads(self, h: jax.Array, tokens: jax.Array) -> jax.Array:
        """The tokens."""
        return tokens


class SpatialTransformer(nn.Module):
    """`depth` reading blocks over all pixels, with a residual: [B, H, W, C] -> [B, H, W, C] of `dtype`.

    x + dense(blocks(dense(GroupNorm(x)))); the last dense layer starts at zero. `block` is the class of the blocks.
    """

    heads: int
    depth: int = 1
    groups: int = 32
    dtype: Any = jnp.float32
    attend: Attend = by_xla
    block: type[ReadingBlock] = ReadingBlock

    @nn.compact
    def __call__(self, x: jax.Array, context: LayerContext) -> jax.Array:
        batch, height, width, channels = x.shape
        h = group_norm(self.groups, self.dtype, "norm", epsilon=1e-6)(x).reshape(batch, height * width, channels)
        h = dense(channels, self.dtype, "project_in")(h)
        for i in range(self.depth):
            h = self.block(self.heads, self.dtype, self.attend, name=f"block_{i}")(h, context.tokens)  # type: ignore[arg-type]  # `Skeleton` tells them
        h = dense(channels, self.dtype, "project_out", kernel_init=zero_init)(h)
        return x + h.reshape(x.shape)


class TextUNet(Skeleton):
    """Stable Diffusion's U-Net. The defaults are version 1's, of 859,520,964 parameters for tokens of 768 features.

    Version 2 has `heads=heads_of_width(64)` and tokens of 1024. It listens to "tokens", float [B, L, D]: an encoded
    text, or any other sequence. SDXL (Podell et al. 2023), of 2,567,463,684 parameters for tokens of 2048 features,
    has `multipliers=(1, 2, 4), attention_levels=(1, 2), depth=(1, 2, 10, 10), heads=heads_of_width(64)` and
    `embed={"sizes": SizesEmbedding()}`.

    Attributes, beside those of `Skeleton`:
      heads: `features -> number of heads` (`adm.heads_of_width`, `adm.heads_always`).
      depth: reading blocks in each transformer, a number for all or one for each level and one for the middle.
      listening_levels: levels where pixels read the text alone (`ListeningBlock`), as in Stable Diffusion's upscaler.
    """

    channels: int = 320
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    attention_levels: tuple[int, ...] = (0, 1, 2)
    out_channels: int = 4
    heads: Heads = heads_always(8)
    depth: int | tuple[int, ...] = 1
    listening_levels: tuple[int, ...] = ()

    encode_time = staticmethod(cosinusoid)
    epsilon = 1e-5
    sequences = ("tokens",)

    @property
    def outer_activation(self) -> Activation:  # type: ignore[override]
        """That of the residual blocks, everywhere."""
        return self.activation

    def parts(self) -> Parts:
        """DDPM's residual blocks and resampling, with transformers for attention."""
        block, transformer = self.wrap(ResBlock), self.wrap(SpatialTransformer)
        norm = {"groups": self.groups, "dtype": self.dtype}
        reading = norm | {"attend": self.attend}
        residual = norm | {"epsilon": self.epsilon, "activation": self.activation}

        def attention(level, features, name):
            kind = ListeningBlock if level in self.listening_levels else ReadingBlock
            return transformer(self.heads(features), of_level(self.depth, level), **reading, block=kind, name=name)

        return Parts(
            block=lambda features, name: block(features, self.dropout, **residual, name=name),
            attention=attention,
            down=lambda features, name: Downsample(SAME, dtype=self.dtype, name=name),
            up=lambda features, name: Upsample(dtype=self.dtype, name=name),
        )

    @nn.nowrap
    def check(self, x: jax.Array) -> None:
        """As of `Skeleton`; also where `depth` is not of as many levels."""
        super().check(x)
        places = len(self.multipliers) + 1
        if isinstance(self.depth, tuple) and len(self.depth) != places:
            raise InputError(f"depth {self.depth}: give one number, or {places}, one a level and one for the middle")
