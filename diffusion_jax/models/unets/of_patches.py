"""A network that sees blocks of pixels as one pixel of more channels: most of its work is done on small maps."""

from collections.abc import Mapping

import jax
from flax import linen as nn

from diffusion_jax.models.ops.patches import gathered, spread


class OfPatches(nn.Module):
    """`network`, to which images [B, H, W, C] are [B, H / side, W / side, side^2 C], and whose output is turned back.

    Attributes:
      network: any network for images, of side^2 times the channels of an image as output.
      side: of a block in pixels, a divisor of H and W.
    """

    network: nn.Module
    side: int

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x; `InputError` where blocks do not tile it."""
        return spread(self.network(gathered(x, self.side), time, cond, dropout_keys), self.side)
