"""A label that is read as a sequence of one token, by cross-attention (Rombach et al. 2022, appendix E.2.1)."""

from collections.abc import Mapping

import jax
from flax import linen as nn

from diffusion_jax.models.blocks.conditioning import LabelEmbedding, apart

LABEL = "label"


class LabelTokens(nn.Module):
    """`network`, which is told "tokens" [B, 1, features], the learned vector of a "label", int [B].

    Parameters: {"network": the network's, "embed_label": {"embedding": [rows, features]}}.

    Attributes:
      network: any network that is told "tokens", such as `TextUNet`.
      rows: labels are 0 to rows - 1; the last is usually the one that tells nothing.
      features: of a token.
    """

    network: nn.Module
    rows: int
    features: int = 512

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array],
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x [B, H, W, C]; `InputError` without the label."""
        label, rest = apart(cond, LABEL)
        tokens = LabelEmbedding(self.rows, name="embed_label")(label, self.features)[:, None]
        return self.network(x, time, {**(rest or {}), "tokens": tokens}, dropout_keys)
