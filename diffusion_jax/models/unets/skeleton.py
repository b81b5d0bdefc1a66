"""What all U-Nets share: how blocks are wired. What the blocks are is up to each (`Skeleton.parts`).

Levels are counted from 0, the full resolution; each halves the one before it. The way down has `blocks` residual
blocks a level and the way up one more. Every map of the way down, the first convolution and the downsampled maps
included, is concatenated to the input of one block of the way up.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Activation, Attend, MakeAttention, MakeLayer, Wrap
from diffusion_jax.models.blocks.conditioning import check_names, conditions_of, embedded
from diffusion_jax.models.blocks.layers import (
    LayerContext,
    TimeEmbedding,
    conv3x3,
    dense,
    group_norm,
    sinusoid,
    zero_init,
)
from diffusion_jax.models.ops.attention import by_xla


class Parts(NamedTuple):
    """Constructors of a U-Net's layers, each of which is called with (h [B, H, W, C], `LayerContext`).

    Attributes:
      block: `(features, name) -> layer`, to [B, H, W, features].
      attention: `(level, features, name) -> layer`, to the same shape; the middle is the level after the last.
      down: `(features, name) -> layer`, to [B, H / 2, W / 2, features].
      up: `(features, name) -> layer`, to [B, 2 H, 2 W, features].
    """

    block: MakeLayer
    attention: MakeAttention
    down: MakeLayer
    up: MakeLayer


def of_level(value: int | tuple[int, ...], level: int) -> int:
    """What a level has, of a number for all levels or one for each."""
    return value[level] if isinstance(value, tuple) else value


class Skeleton(nn.Module):
    """A U-Net but for its `parts`.

    Attributes:
      channels: of the first convolution.
      multipliers: channels of each level, as multiples of `channels`; fractions too, to the nearest whole number.
      blocks: residual blocks on the way down, a number for all levels or one for each; the way up has one more.
      attention_levels: levels where attention stands after every residual block, down and up. The middle always
        has it, unless `middle_attention` is False.
      out_channels: channels of the result.
      dropout: rate in [0, 1) within each residual block; active only when keys are given.
      groups: groups of every group normalisation.
      embed: name of a condition -> module that makes a vector of it (`conditioning`), added to the time embedding; a
        module of several conditions has any name, and `hears` theirs.
      token_features: "tokens" are projected to so many features before layers attend to them; None for as they are.
      embed_early: likewise, but added to the time's sinusoid, before its dense layers (`GuidanceEmbedding`).
      wrap: module class -> module class, around residual and attention blocks: `nn.remat` recomputes what is inside
        them in the backward pass, which takes less memory and more time, and changes no number.
      dtype: of convolutions, dense layers and attention products. Parameters, statistics of normalisation,
        softmax, time embedding, last convolution and result are float32 whatever it is.
      time_features: of the time's sinusoid; None for as many as `channels`.
      embedding_features: of the time's embedding; None for four times as many as its sinusoid has.
      attend: what attention is computed by, `attention.by_xla` or `attention.flash`.
      activation: within residual blocks.
      up_attention_levels: levels with attention on the way up; None for those of the way down.
      middle_attention: whether the middle has it.
      middle: whether there is a middle at all, between the ways down and up.
      middle_scale: what the residual sums of the middle are divided by.
    """

    channels: int = 128
    multipliers: tuple[float, ...] = (1, 2, 2, 2)
    blocks: int | tuple[int, ...] = 2
    attention_levels: tuple[int, ...] = (1,)
    out_channels: int = 3
    dropout: float = 0.0
    groups: int = 32
    embed: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    embed_early: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    token_features: int | None = None
    wrap: Wrap = lambda module: module
    dtype: Any = jnp.float32
    time_features: int | None = None
    embedding_features: int | None = None
    attend: Attend = by_xla
    activation: Activation = nn.swish
    up_attention_levels: tuple[int, ...] | None = None
    middle_attention: bool = True
    middle: bool = True
    middle_scale: float = 1.0

    # What kinds of U-Net choose for all their layers; not fields, for no user does.
    encode_time = staticmethod(sinusoid)
    outer_activation = staticmethod(nn.swish)  # of the time's embedding, and before the last convolution
    epsilon = 1e-6
    sequences: ClassVar[tuple[str, ...]] = ()  # conditions that layers attend to, fields of `LayerContext`
    optional: ClassVar[tuple[str, ...]] = ()  # such that may be missing

    def parts(self) -> Parts:
        """The layers of this kind of U-Net."""
        raise NotImplementedError

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(round(self.channels * multiplier) for multiplier in self.multipliers)

    @property
    def halvings(self) -> int:
        """How often the way down halves an image."""
        return len(self.multipliers) - 1

    @property
    def attended_up(self) -> tuple[int, ...]:
        """Levels with attention on the way up."""
        return self.attention_levels if self.up_attention_levels is None else self.up_attention_levels

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
        residuals: Sequence[jax.Array] | None = None,
    ) -> jax.Array:
        """The network's raw output for noisy images (in DDPM, its estimate of the noise).

        Args:
          x: [B, H, W, C], H and W multiples of 2^`halvings`, equal or not; of any float type.
          time: [B], integer or float, in steps: 0 to 999 for DDPM's published weights.
          cond: what the network is told (`conditioning`), with exactly the names that it listens to.
          dropout_keys: None for evaluation, or one typed threefry key an example, [B]. The masks of an
            example depend only on its own key.
          residuals: None, or what to add to every skip connection, in the order of the way down, and at last to
            the middle's result (`controlnet`).

        Returns:
          float32 [B, H, W, out_channels].

        Raises:
          InputError: H or W cannot be halved that often, channels do not divide into groups, a level does not
            exist, a condition is missing or unknown, or the dropout's rate or keys are unfit.
        """
        h, skips, context = self.encode(x, time, cond, dropout_keys)
        if residuals is not None:
            *beside, middle = residuals
            skips = [skip + residual for skip, residual in zip(skips, beside, strict=True)]
            h = h + middle
        return self.decode(h, skips, context)

    # `encode` and `decode` are plain functions within the caller's scope: another module may borrow a half.

    @nn.nowrap
    def encode(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
        inward: Activation = lambda h: h,
    ) -> tuple[jax.Array, list[jax.Array], LayerContext]:
        """The way down and the middle: (result, skip connections, `LayerContext`); `inward` acts on the first map."""
        self.check(x)
        context, parts, last = self.tell(time, cond, dropout_keys), self.parts(), len(self.widths) - 1

        h = inward(conv3x3(self.channels, self.dtype, "input_conv")(x))
        skips, image = [h], x
        for level, features in enumerate(self.widths):
            for i in range(of_level(self.blocks, level)):
                h = parts.block(features, f"down_{level}_block_{i}")(h, context)
                if level in self.attention_levels:
                    h = parts.attention(level, features, f"down_{level}_attention_{i}")(h, context)
                skips.append(h)
            if level != last:
                h = parts.down(features, f"down_{level}_downsample")(h, context)
                h, image = self.accompany(h, image, level)
                skips.append(h)

        return self.turn(h, context), skips, context

    @nn.nowrap
    def accompany(self, h: jax.Array, image: jax.Array, level: int) -> tuple[jax.Array, jax.Array]:
        """What the way down goes on with below `level`, and what goes along with it: here the input, unused."""
        return h, image

    @nn.nowrap
    def tell(
        self, time: jax.Array, cond: Mapping[str, jax.Array] | None, dropout_keys: jax.Array | None
    ) -> LayerContext:
        """What every layer is told."""
        names = (*conditions_of(self.embed), *conditions_of(self.embed_early), *self.sequences)
        check_names(cond, names, self.optional)
        features = self.time_features or self.channels
        width, activation = self.embedding_features or 4 * features, self.outer_activation
        embed_time = TimeEmbedding(features, self.encode_time, activation, width, name="time_embedding")
        embedding = embed_time(time, embedded(self.embed_early, cond, features))
        embedding = embedding + embedded(self.embed, cond, width)
        told = {name: value for name, value in (cond or {}).items() if name in (*self.sequences, *self.optional)}
        if self.token_features is not None:
            told["tokens"] = dense(self.token_features, self.dtype, "project_tokens")(told["tokens"])
        return LayerContext(embedding, dropout_keys=dropout_keys, **told)

    @nn.nowrap
    def turn(self, h: jax.Array, context: LayerContext) -> jax.Array:
        """The middle, if there is one."""
        if not self.middle:
            return h
        parts, features = self.parts(), self.widths[-1]
        h = parts.block(features, "middle_block_0")(h, context) / self.middle_scale
        if self.middle_attention:
            h = parts.attention(len(self.widths), features, "middle_attention")(h, context) / self.middle_scale
        return parts.block(features, "middle_block_1")(h, context) / self.middle_scale

    @nn.nowrap
    def decode(self, h: jax.Array, skips: Sequence[jax.Array], context: LayerContext) -> jax.Array:
        """The way up, to the network's result."""
        parts, skips, attended = self.parts(), list(skips), self.attended_up
        for level, features in reversed(tuple(enumerate(self.widths))):
            for i in range(of_level(self.blocks, level) + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = parts.block(features, f"up_{level}_block_{i}")(h, context)
                if level in attended and self.attends_up(level, i):
                    h = parts.attention(level, features, f"up_{level}_attention_{i}")(h, context)
            if level != 0:
                h = parts.up(features, f"up_{level}_upsample")(h, context)

        return self.finish(h)

    @nn.nowrap
    def finish(self, h: jax.Array) -> jax.Array:
        """The network's result, of the last map."""
        h = self.outer_activation(group_norm(self.groups, jnp.float32, "output_norm", self.epsilon)(h))
        return conv3x3(self.out_channels, jnp.float32, "output_conv", kernel_init=zero_init)(h)

    @nn.nowrap
    def attends_up(self, level: int, block: int) -> bool:
        """Whether attention stands after that residual block of a level on the way up: after each of them."""
        return True

    @nn.nowrap
    def check(self, x: jax.Array) -> None:
        """Raise `InputError` unless the network can have images of the shape of `x`."""
        height, width = x.shape[1:3]
        multiple = 2**self.halvings
        if height % multiple or width % multiple:
            raise InputError(
                f"images of {height}x{width}: height and width must be multiples of {multiple} "
                f"for {len(self.multipliers)} levels; resize, crop or pad them"
            )
        for channels in (self.channels, *self.widths):
            if channels % self.groups:
                raise InputError(
                    f"{channels} channels do not divide into {self.groups} groups; "
                    f"take channels as a multiple of {self.groups}, or other groups"
                )
        if isinstance(self.blocks, tuple) and len(self.blocks) != len(self.multipliers):
            raise InputError(f"blocks {self.blocks}: give one number, or {len(self.multipliers)}, one for each level")
        for level in (*self.attention_levels, *(self.up_attention_levels or ())):
            if not 0 <= level < len(self.multipliers):
                raise InputError(f"attention at level {level}: levels run from 0 to {len(self.multipliers) - 1}")
