"""What all networks of tokens in raster order share: tokens in, logits out, and what they are told."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.autoregressive.layers import Grouped, TokenTable, Told
from diffusion_jax.models.blocks.conditioning import check_names, conditions_of, embedded
from diffusion_jax.models.blocks.layers import zero_init


class Raster(nn.Module):
    """A network that says of each token what it reads off those before it; but for its `body`.

    Attributes:
      vocab: tokens are 0 to vocab - 1; vocab itself stands for one that is not known yet.
      features: of each layer, a multiple of the channels of tokens.
      token_features: of a token's vector.
      head_features: between the two layers that make logits; a multiple of the channels of tokens.
      dropout: rate in [0, 1) within each layer; active only when keys are given.
      embed: name of a condition -> module that makes a vector of it (`conditioning`), a bias of all gates.
      maps: names of conditions that have a value at each pixel, float [B, H, W, D], such as an enlarged map of
        coarser codes: each layer adds 1x1 convolutions of them to its gates.
      dtype: of products. Parameters are float32, and so are the last layer and the result, unless it is float64.
    """

    vocab: int
    features: int = 128
    token_features: int = 16
    head_features: int = 128
    dropout: float = 0.0
    embed: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    maps: tuple[str, ...] = ()
    dtype: Any = jnp.float32

    def body(self, x: jax.Array, groups: int, told: Told) -> jax.Array:
        """Features [B, H, W, `features`] of tokens' vectors [B, H, W, groups * `token_features`], both in groups."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array | None = None,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Logits of every token, given those before it: by rows, in a row from the left, in a pixel by channel.

        Args:
          x: integer [B, H, W, C] or [B, H, W]. A token beyond `vocab` makes its example NaN.
          time: not used: the order says what is known.
          cond: what the network is told, with exactly the names in `embed` and `maps`.
          dropout_keys: None for evaluation, or one typed threefry key an example, [B]. The masks of an example
            depend only on its own key.

        Returns:
          float32 [B, H, W, C, vocab] or [B, H, W, vocab], all but 0 at first.

        Raises:
          InputError: tokens of another shape or type; or beyond `vocab`, where their values are known and not traced;
            C does not divide the features; a condition is missing, unknown, or a map of another height or width; or
            the dropout's rate or keys are unfit.
        """
        del time
        self._check(x, cond)
        tokens = x.reshape(*x.shape[:3], -1)
        groups = tokens.shape[-1]
        cond = cond or {}
        told = Told(
            embedded(self.embed, cond, self.features).astype(self.dtype) if self.embed else None,
            jnp.concatenate([cond[name] for name in self.maps], -1).astype(self.dtype) if self.maps else None,
            dropout_keys,
        )
        h = TokenTable(self.vocab, self.token_features, self.dtype, name="tokens")(tokens)
        h = nn.relu(self.body(h, groups, told))
        h = nn.relu(Grouped(self.head_features, groups, self.dtype, name="head")(h))
        wide = jnp.promote_types(self.dtype, jnp.float32)
        logits = Grouped(groups * self.vocab, groups, wide, kernel_init=zero_init, name="output")(h)
        return logits.reshape(*x.shape, self.vocab)

    def _check(self, x, cond):
        if not jnp.issubdtype(x.dtype, jnp.integer) or x.ndim not in (3, 4):
            raise InputError(f"{x.dtype}{list(x.shape)}: tokens are integers [B, H, W] or [B, H, W, C]")
        channels = x.shape[3] if x.ndim == 4 else 1
        for name in ("features", "head_features"):
            if getattr(self, name) % channels:
                raise InputError(
                    f"{name} {getattr(self, name)} do not divide into the {channels} channels of a pixel; "
                    f"take a multiple of {channels}"
                )
        if not isinstance(x, jax.core.Tracer):
            tokens = np.asarray(x)
            beyond = tokens[(tokens < 0) | (tokens > self.vocab)]
            if beyond.size:
                raise InputError(f"there is no token {beyond[0]}: they run from 0 to {self.vocab - 1}")
        check_names(cond, (*conditions_of(self.embed), *self.maps))
        for name in self.maps:
            shape = (cond or {})[name].shape
            if len(shape) != 4 or shape[:3] != x.shape[:3]:
                raise InputError(
                    f"the condition {name!r} of shape {list(shape)} is no map of tokens {list(x.shape)}; "
                    f"enlarge it to [{', '.join(map(str, x.shape[:3]))}, D]"
                )


def check_side(side: int, name: str) -> None:
    """`InputError` unless a window of this side has a middle and something beside it."""
    if side < 3 or side % 2 == 0:
        raise InputError(f"{name} {side}: a window of pixels has an odd side of 3 or more; take {max(3, side | 1)}")
