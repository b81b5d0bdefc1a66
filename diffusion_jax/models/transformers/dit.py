"""DiT, the diffusion transformer (Peebles and Xie 2023, section 3), layer for layer as in its official code."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Attend, EncodeTime, Wrap
from diffusion_jax.models.blocks.conditioning import check_names, conditions_of, embedded
from diffusion_jax.models.blocks.layers import Convolution, cosinusoid, dense, scaled_init
from diffusion_jax.models.ops import products
from diffusion_jax.models.ops.attention import by_xla
from diffusion_jax.models.ops.patches import spread
from diffusion_jax.models.transformers.transformer import TransformerBlock, closed, layer_norm, modulations

SINUSOID = 256  # features in which the time is told, whatever the width of the network

# The official query, key and value are one dense layer C -> 3 C, drawn uniformly with variance 1 / (2 C).
joint_init = scaled_init(0.5)


def patch_init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """As of a dense layer on the flattened patch: uniform of variance 1 / mean(p p C, features)."""
    fan_in, fan_out = math.prod(shape[:-1]), shape[-1]
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.flat(jax.random.uniform, key, shape, dtype, -limit, limit)


def positions(height: int, width: int, features: int) -> np.ndarray:
    """Where a token stands, float32 [height * width, features], in reading order.

    [sin(x w_k), cos(x w_k), sin(y w_k), cos(y w_k)], a quarter of the features each: the column x before the row
    y, both counted from 0, w_k = 10000^(-k / (features / 4)). As in the code of MAE (He et al. 2022).

    Raises:
      InputError: `features` is not a multiple of 4.
    """
    if features % 4:
        raise InputError(f"positions in {features} features: take a multiple of 4")
    quarter = features // 4
    frequencies = 10000.0 ** (-np.arange(quarter) / quarter)
    rows, columns = np.indices((height, width)).reshape(2, -1)
    angles = [np.outer(place, frequencies) for place in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)


class TimestepEmbedding(nn.Module):
    """Sinusoid of 256 features -> dense -> swish -> dense: time [B] -> float32 [B, features], all in float32."""

    features: int
    encode: EncodeTime = cosinusoid

    @nn.compact
    def __call__(self, time: jax.Array) -> jax.Array:
        small = nn.initializers.normal(0.02)
        h = dense(self.features, jnp.float32, "dense_0", small)(self.encode(time, SINUSOID))
        return dense(self.features, jnp.float32, "dense_1", small)(nn.swish(h))


class DiT(nn.Module):
    """A vision transformer on patches, which hears the time and its conditions through adaLN-Zero.

    The defaults are DiT-XL/2, for latents of 4 channels, the mean and the variance of each being said
    (`parameterizations.learned_range`). As published it is told the class, or that there is none (1000):

      DiT(embed={"label": LabelEmbedding(1001, nn.initializers.normal(0.02))})

    which has 674,834,720 parameters; with the table of positions, which is not trained, the official network counts
    675,129,632. `S`, `B`, `L` and `XL` are the sizes of the paper's table 1, as constructors: DiT-B/4 for pixels is
    `B(patch=4, out_channels=3)`. The network starts as exactly 0, and has no dropout.

    Attributes:
      patch: side of a patch, in pixels. A token is a patch: halving it takes four times as many.
      features: width, a multiple of `heads` and of 4.
      layers: number of blocks.
      heads: heads of attention. Memory grows with heads * (number of tokens)^2 where attention is not fused.
      out_channels: channels of the result.
      embed: name of a condition -> module that makes a vector of it (`conditioning`), added to the time embedding.
      encode_time: `(time [B], features) -> [B, features]`; `layers.cosinusoid` is what published weights expect.
      wrap: module class -> module class, around every block: `nn.remat` recomputes what is inside in the backward
        pass, which takes less memory and more time, and changes no number.
      dtype: of convolution, dense layers and attention products. Parameters, statistics of normalisation,
        softmax, time embedding, last layer and result are float32 whatever it is.
      attend: what attention is computed by, `attention.by_xla` or `attention.flash`.
    """

    patch: int = 2
    features: int = 1152
    layers: int = 28
    heads: int = 16
    out_channels: int = 8
    embed: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    encode_time: EncodeTime = cosinusoid
    wrap: Wrap = lambda module: module
    dtype: Any = jnp.float32
    attend: Attend = by_xla

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's raw output for noisy images or latents.

        Args:
          x: [B, H, W, C], H and W multiples of `patch`, equal or not; of any float type. Published weights were
            trained at one size; positions are counted from the top left corner at every size.
          time: [B], integer or float, in steps: 0 to 999 for the published weights.
          cond: what the network is told (`conditioning`), with exactly the names in `embed`.
          dropout_keys: not used; there is no dropout.

        Returns:
          float32 [B, H, W, out_channels].

        Raises:
          InputError: `patch` does not divide H and W, `heads` or 4 does not divide `features`, or a condition is
            missing or unknown.
        """
        batch, height, width, _ = x.shape
        if height % self.patch or width % self.patch:
            raise InputError(
                f"images of {height}x{width}: height and width must be multiples of {self.patch}, the side of a "
                "patch; resize, crop or pad them"
            )
        check_names(cond, conditions_of(self.embed))
        rows, columns = height // self.patch, width // self.patch
        embedding = TimestepEmbedding(self.features, self.encode_time, name="time_embedding")(time)
        embedding = embedding + embedded(self.embed, cond, self.features)

        window = (self.patch, self.patch)
        patches = Convolution(self.features, self.dtype, products.of_patches, patch_init, window, name="patches")
        h = patches(x).reshape(batch, rows * columns, self.features) + positions(rows, columns, self.features)[None]
        h = h.astype(self.dtype)
        block = self.wrap(TransformerBlock)
        for i in range(self.layers):
            layer = block(self.heads, dtype=self.dtype, query_init=joint_init, attend=self.attend, name=f"block_{i}")
            h = layer(h, embedding)

        shift, scale = modulations(embedding, 2, self.features, jnp.float32, "output_modulation")
        h = layer_norm(h, jnp.float32) * (1 + scale) + shift
        h = dense(self.patch**2 * self.out_channels, jnp.float32, "output", closed)(h)
        return spread(h.reshape(batch, rows, columns, -1), self.patch)


S = functools.partial(DiT, features=384, layers=12, heads=6)
B = functools.partial(DiT, features=768, layers=12, heads=12)
L = functools.partial(DiT, features=1024, layers=24, heads=16)
XL = functools.partial(DiT, features=1152, layers=28, heads=16)
