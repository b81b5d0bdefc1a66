"""A network for vectors: points in the plane, tables, what another model made of an image."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.conditioning import check_names, conditions_of, embedded
from diffusion_jax.models.blocks.layers import TimeEmbedding, dense, zero_init


class OfImages(nn.Module):
    """A network of vectors as one of small images: pixels are its numbers, [B, H, W, C] -> [B, H, W, D / (H W)].

    Attributes:
      network: of [B, H W C] numbers, which answers D of them.
    """

    network: nn.Module

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x [B, H, W, C]; `InputError` where D is no multiple of H W."""
        batch, height, width, _ = x.shape
        out = self.network(x.reshape(batch, -1), time, cond, dropout_keys)
        if out.shape[-1] % (height * width):
            raise InputError(f"{out.shape[-1]} numbers are no image of {height}x{width}; give the network a multiple")
        return out.reshape(batch, height, width, -1)


class MLP(nn.Module):
    """A residual perceptron: h <- h + dense(swish(dense(h) + dense(swish(time embedding)))), `layers` times.

    Nothing is normalised. A point is a few numbers, and normalising what is linear in them would leave its
    direction and forget how far out it is. From input to output runs a linear path, which is most of the answer
    where noise is strong.

    Attributes:
      features: width of every hidden layer, even and at least 4.
      layers: number of residual layers.
      embed: name of a condition -> module that makes a vector of it, added to the time embedding (`conditioning`).
      embed_early: likewise, but added to the time's sinusoid, before its dense layers (`GuidanceEmbedding`).
      outputs: how many numbers are answered; as many as x has by default.
    """

    features: int = 128
    layers: int = 3
    embed: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    embed_early: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    outputs: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's raw output for noisy vectors.

        Args:
          x: [B, D], of any float type; each number of about unit size.
          time: [B], integer or float, from 0 to 1000.
          cond: what the network is told, with exactly the names in `embed` and `embed_early`.
          dropout_keys: not used; there is no dropout.

        Returns:
          float32 [B, D] or [B, outputs], all but 0 at first.

        Raises:
          InputError: x is not [B, D], `features` is odd or below 4, or a condition is missing or
            unknown.
        """
        if x.ndim != 2:
            raise InputError(f"an MLP for x of shape {x.shape}: make it [batch, numbers]")
        check_names(cond, (*conditions_of(self.embed), *conditions_of(self.embed_early)))
        early = embedded(self.embed_early, cond, self.features)
        embedding = TimeEmbedding(self.features, name="time_embedding")(time, early)
        embedding = nn.swish(embedding + embedded(self.embed, cond, 4 * self.features))
        h = dense(self.features, jnp.float32, "input")(x)
        for i in range(self.layers):
            branch = dense(self.features, jnp.float32, f"layer_{i}_dense_0")(h)
            branch = branch + dense(self.features, jnp.float32, f"layer_{i}_time")(embedding)
            h = h + dense(self.features, jnp.float32, f"layer_{i}_dense_1", zero_init)(nn.swish(branch))
        return dense(self.outputs or x.shape[-1], jnp.float32, "output", zero_init)(h)
