"""ADM's U-Net that reads a text: its attention has the text's keys and values beside the pixels'.

GLIDE's (Nichol et al. 2021), and after it unCLIP's decoder (Ramesh et al. 2022), Imagen's base (Saharia et al. 2022)
and DeepFloyd IF's first two networks.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Activation, Attend, Heads, MakeAttention, MakeLayer, Wrap
from diffusion_jax.models.blocks.layers import LayerContext, dense, group_norm, zero_init
from diffusion_jax.models.ops.attention import by_xla, masked, multi_head
from diffusion_jax.models.unets.adm import ADMUNet
from diffusion_jax.models.unets.skeleton import Parts


class TextAttention(nn.Module):
    """Attention of pixels to a text and to one another, with a residual: [B, H, W, C] -> [B, H, W, C] of `dtype`.

    x + out(softmax(q [k_text, k]^T / sqrt(C / heads)) [v_text, v]), with q, k, v dense layers of GroupNorm(x), and
    k_text, v_text dense layers of the tokens, float [B, L, D]. `out` starts at zero. C is a multiple of `groups` and
    of `heads`. Where the context has a mask, tokens that it withholds are not read (`attention.masked`, by XLA).

    Attributes:
      token_groups: of a group normalisation of the tokens, each group over all of them; None for none.
      attend: what attention is computed by, where there is no mask.
    """

    heads: int = 1
    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    attend: Attend = by_xla
    token_groups: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, context: LayerContext) -> jax.Array:
        batch, height, width, channels = x.shape
        h = group_norm(self.groups, self.dtype, "norm", self.epsilon)(x).reshape(batch, height * width, channels)
        tokens = context.tokens.astype(self.dtype)  # type: ignore[union-attr]  # `Skeleton` tells them
        if self.token_groups is not None:
            tokens = group_norm(self.token_groups, self.dtype, "norm_tokens", self.epsilon)(tokens)
        sources = {"text_": tokens} | self.seen(h)
        key, value = (
            jnp.concatenate(
                [dense(channels, self.dtype, f"{of}{kind}")(rows) for of, rows in sources.items()], axis=1
            )
            for kind in ("key", "value")
        )
        attend = self.attend
        if context.token_mask is not None:
            pixels = key.shape[1] - tokens.shape[1]
            attend = masked(jnp.pad(context.token_mask, ((0, 0), (0, pixels)), constant_values=True))
        query = dense(channels, self.dtype, "query")(h)
        h = multi_head(query, key, value, self.heads, attend).reshape(x.shape)
        return x + dense(channels, self.dtype, "out", kernel_init=zero_init)(h)

    def seen(self, h: jax.Array) -> dict[str, jax.Array]:
        """What is read beside the text, by the first part of its layers' names: the pixels."""
        return {"": h}


class TextOnlyAttention(TextAttention):
    """`TextAttention` of pixels to a text alone."""

    def seen(self, h: jax.Array) -> dict[str, jax.Array]:
        """Nothing."""
        return {}


def attending(
    text_only_levels: tuple[int, ...], heads: Heads, wrap: Wrap, fields: Mapping[str, Any]
) -> MakeAttention:
    """Attention to the text, and to other pixels but for `text_only_levels`, with `fields` of `TextAttention`."""

    def attention(level: int, features: int, name: str) -> TextAttention:
        kind = TextOnlyAttention if level in text_only_levels else TextAttention
        return wrap(kind)(heads(features), **fields, name=name)

    return attention


def check_levels(text_only_levels: tuple[int, ...], middle: int) -> None:
    """Raise `InputError` unless they are levels; the middle is the level after the last."""
    for level in text_only_levels:
        if not 0 <= level <= middle:
            raise InputError(f"text_only_levels: {level}; levels run from 0 to {middle}, the middle")


class AddedKeyUNet(ADMUNet):
    """ADM's U-Net with a text's keys and values added to its attention.

    The defaults are Karlo's decoder, an unCLIP, but for its image embedding, `embed={"vector": GivenEmbedding()}`:
    885,439,686 parameters for tokens of 1536 features. IF's first network is of T5's rows, `token_features=4 *
    channels, token_groups=32, activation=gelu, embed={"tokens": TokensEmbedding()}`, channels 192, 320 or 704.

    It listens to "tokens", float [B, L, D], and may be told "token_mask", bool [B, L], true where there is text.

    Attributes, beside those of `ADMUNet`:
      token_groups: of a group normalisation of the tokens in each attention; None for none.
      text_only_levels: levels where pixels attend to the text alone; the middle is the level after the last.
      divisor: of the sums of residual blocks.
      embedding_activation: acts on the embedding in residual blocks; None for `activation`.
    """

    channels: int = 320
    token_groups: int | None = None
    text_only_levels: tuple[int, ...] = ()
    divisor: float = 1.0
    embedding_activation: Activation | None = None

    sequences = ("tokens",)
    optional = ("token_mask",)

    @property
    def outer_activation(self) -> Activation:  # type: ignore[override]
        """That of the residual blocks, everywhere."""
        return self.activation

    @property
    def residual_fields(self) -> dict[str, Any]:
        """As of `ADMUNet`, with what acts on the embedding."""
        return super().residual_fields | {"embedding_activation": self.embedding_activation}

    def parts(self) -> Parts:
        """ADM's, whose sums are divided, with attention to the text."""
        fields = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype, "attend": self.attend}
        fields["token_groups"] = self.token_groups
        parts = super().parts()
        block, down, up = (self._divided(make) for make in (parts.block, parts.down, parts.up))
        return Parts(block, attending(self.text_only_levels, self.heads, self.wrap, fields), down, up)

    def _divided(self, make: MakeLayer) -> MakeLayer:
        return lambda features, name: lambda h, context: make(features, name)(h, context) / self.divisor

    @nn.nowrap
    def check(self, x: jax.Array) -> None:
        """As of `Skeleton`; also where `text_only_levels` has one that does not exist."""
        super().check(x)
        check_levels(self.text_only_levels, len(self.multipliers))
