"""PixelCNN: masked convolutions (van den Oord et al. 2016), and its gated form without a blind spot (2016b)."""

import jax
from flax import linen as nn

from diffusion_jax.models.autoregressive.layers import (
    Grouped,
    Heard,
    Told,
    gated,
    neighbours,
    own_row,
    rows_above,
    shifted_down,
    to_the_left,
)
from diffusion_jax.models.autoregressive.raster import Raster, check_side
from diffusion_jax.models.blocks.layers import Dropout, dense


class GatedLayer(nn.Module):
    """Gated PixelCNN's layer (van den Oord et al. 2016b, figure 2), without its residual.

    The vertical stack knows its own row and those above, the whole of them. It is moved down by one row before the
    horizontal stack hears of it, and never hears of that: so nothing above is hidden from a pixel, and nothing that
    comes later is told.

    Call with vertical and horizontal features [B, H, W, C], and what is told; it returns both, [B, H, W, features].

    Attributes:
      features: of each stack, a multiple of `groups`.
      side: of the window, odd.
      groups: channels of tokens.
      dropout: rate in [0, 1), of the gated horizontal features.
      dtype: of products.
      strict: whether the horizontal stack is not told of its own place (mask A): the first layer.
    """

    features: int
    side: int
    groups: int
    dropout: float
    dtype: jax.typing.DTypeLike
    strict: bool = False

    @nn.compact
    def __call__(self, vertical: jax.Array, horizontal: jax.Array, told: Told) -> tuple[jax.Array, jax.Array]:
        width = 2 * self.features
        places = rows_above(self.side) + own_row(self.side)
        down = neighbours(width, places, self.dtype, "vertical")(vertical)
        across = neighbours(width, to_the_left(self.side), self.dtype, "horizontal")(horizontal)
        across = across + dense(width, self.dtype, "link")(shifted_down(down))
        if self.groups > 1 or not self.strict:  # of one channel, mask A leaves nothing of the pixel itself
            across = across + Grouped(width, self.groups, self.dtype, self.strict, name="own")(horizontal)
        vertical = gated(down + Heard(width, self.dtype, name="vertical_told")(told), self.groups)
        h = gated(across + Heard(width, self.dtype, name="horizontal_told")(told), self.groups)
        h = Dropout(self.dropout, name="dropout")(h, told.dropout_keys)
        return vertical, Grouped(self.features, self.groups, self.dtype, name="out")(h)


class GatedPixelCNN(Raster):
    """Gated PixelCNN (van den Oord et al. 2016b): a vertical and a horizontal stack, and no blind spot.

    A layer sees side // 2 pixels further: all of a picture is seen only by layers enough.

    Attributes:
      layers: how many, with the first.
      side: of the windows, odd.
      first_side: of the first layer's.

    Other fields and the call as of `Raster`; `InputError` also for a side that is even or below 3.
    """

    layers: int = 10
    side: int = 3
    first_side: int = 7

    def body(self, x: jax.Array, groups: int, told: Told) -> jax.Array:
        check_side(self.side, "side")
        check_side(self.first_side, "first_side")
        first = GatedLayer(
            self.features, self.first_side, groups, self.dropout, self.dtype, strict=True, name="layer_0"
        )
        vertical, horizontal = first(x, x, told)
        for i in range(1, self.layers):
            layer = GatedLayer(self.features, self.side, groups, self.dropout, self.dtype, name=f"layer_{i}")
            vertical, h = layer(vertical, horizontal, told)
            horizontal = horizontal + h
        return horizontal


class MaskedPixelCNN(Raster):
    """PixelCNN as first published: one stack of masked convolutions (van den Oord et al. 2016, figure 5 and table 1).

    It has a blind spot: a wedge to the upper right is hidden from a pixel, however many layers there are. Here as the
    simplest of its kind, and as what a test must tell from the others.

    Fields and the call as of `GatedPixelCNN`.
    """

    layers: int = 10
    side: int = 3
    first_side: int = 7

    def body(self, x: jax.Array, groups: int, told: Told) -> jax.Array:
        check_side(self.side, "side")
        check_side(self.first_side, "first_side")

        def masked(features, side, name):
            return neighbours(features, rows_above(side) + to_the_left(side), self.dtype, name)

        h = masked(self.features, self.first_side, "first")(x)
        if groups > 1:
            h = h + Grouped(self.features, groups, self.dtype, strict=True, name="first_own")(x)
        for i in range(1, self.layers):
            inner = nn.relu(Grouped(self.features, groups, self.dtype, name=f"narrow_{i}")(nn.relu(h)))
            seen = masked(self.features, self.side, f"masked_{i}")(inner)
            seen = seen + Grouped(self.features, groups, self.dtype, name=f"own_{i}")(inner)
            seen = seen + Heard(self.features, self.dtype, name=f"told_{i}")(told)
            seen = Dropout(self.dropout, name=f"dropout_{i}")(nn.relu(seen), told.dropout_keys)
            h = h + Grouped(self.features, groups, self.dtype, name=f"wide_{i}")(seen)
        return h
