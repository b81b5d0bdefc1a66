"""unCLIP's prior (Ramesh et al. 2022, section 2.2): a transformer that denoises the embedding of an image."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.conditioning import check_names
from diffusion_jax.models.blocks.layers import cosinusoid, dense, zero_init
from diffusion_jax.models.encoders.transformer import Transformer, gelu, layer_norm
from diffusion_jax.models.ops.attention import biased, by_xla

ROWS = 4  # beside those of the text: its embedding, the time, x, and the row that is read
UNSEEN = -1e4  # added to the logits of what a row may not read; two of them where it is padding as well


class PriorTransformer(nn.Module):
    """A causal transformer over a text, its embedding, the time, a noisy embedding of an image, and one row more.

    What is read of the last row, a learned one, is the estimate of the image's embedding (`parameterizations.x0`).
    The defaults are those of Karlo, of 1,022,028,544 parameters for embeddings of 768 features. It starts as almost
    nothing.

    It listens to "text_embedding", float [B, E]; "tokens", float [B, L, D], the encoded text; and "token_mask", bool
    [B, L], true where there is text. Without a mask every row reads every row, as published networks do then.

    Attributes:
      tokens: L.
      features: width, even, a multiple of `heads`.
      layers: blocks.
      heads: heads of attention.
      dtype: of dense layers and attention products. Parameters, statistics of normalisation, softmax, time
        embedding, last layer and result are float32 whatever it is.
    """

    tokens: int = 77
    features: int = 2048
    layers: int = 20
    heads: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The estimate of the embedding.

        Args:
          x: [B, D], noisy embeddings, of any float type.
          time: [B], integer or float, from 0 to 999.
          cond: "text_embedding", "tokens", and "token_mask" or not.
          dropout_keys: not used; there is no dropout.

        Returns:
          float32 [B, D].

        Raises:
          InputError: a condition is missing or unknown, the text is not of `tokens` rows, or `heads` does not divide
            `features`.
        """
        cond = cond or {}
        check_names(cond, {"text_embedding", "tokens", *({"token_mask"} & set(cond))})
        length = cond["tokens"].shape[1]
        if length != self.tokens:
            raise InputError(f"a text of {length} rows: this prior reads {self.tokens}; pad or cut it")
        text = dense(self.features, self.dtype, "text")(cond["text_embedding"])
        told = dense(self.features, self.dtype, "tokens")(cond["tokens"])
        h = dense(self.features, jnp.float32, "time_0")(cosinusoid(time, self.features))
        at = dense(self.features, jnp.float32, "time_1")(nn.swish(h))
        noisy = dense(self.features, self.dtype, "input")(x)
        # Of unit size, as the rows that they are added to, or stand among.
        unit = nn.initializers.normal(1.0)
        read = self.param("read", unit, (self.features,), jnp.float32)
        places = self.param("positions", unit, (length + ROWS, self.features), jnp.float32)
        alone = (one[:, None].astype(self.dtype) for one in (text, at, noisy, jnp.broadcast_to(read, at.shape)))
        rows = jnp.concatenate([told, *alone], axis=1) + places.astype(self.dtype)
        attend = biased(hidden(cond["token_mask"])) if "token_mask" in cond else by_xla
        blocks = self.layers, 4 * self.features, self.heads, gelu
        states = Transformer(*blocks, dtype=self.dtype, name="transformer")(rows, attend)
        last = layer_norm(1e-5, jnp.float32, "norm")(states[-1][:, -1])
        return dense(x.shape[-1], jnp.float32, "output", zero_init)(last)


def hidden(mask: jax.Array) -> jax.Array:
    """What is added to attention's logits, float32 [B, 1, L + 4, L + 4], of a mask of the text, bool [B, L].

    A row reads itself and those before it, but for padding.
    """
    rows = mask.shape[1] + ROWS
    seen = jnp.pad(mask, ((0, 0), (0, ROWS)), constant_values=True)[:, None, None, :]
    return jnp.where(jnp.tri(rows, dtype=bool), 0.0, UNSEEN) + jnp.where(seen, 0.0, UNSEEN)
