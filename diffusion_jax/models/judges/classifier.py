"""A classifier of noisy images: a U-Net's way down (Dhariwal & Nichol 2021, section 4)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.models.blocks.layers import dense, group_norm
from diffusion_jax.models.unets.skeleton import Skeleton

silent = nn.initializers.zeros_init()  # all classes alike at first


class Classifier(nn.Module):
    """The way down and the middle of a U-Net, averaged over pixels, and a dense layer.

    Attributes:
      unet: any U-Net; it gives the wiring, and no way up.
      classes: labels are 0 to classes - 1.
    """

    unet: Skeleton
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Logits, float32 [B, classes], of noisy images; arguments and errors as of the U-Net."""
        h, _, _ = self.unet.encode(x, time, dropout_keys=dropout_keys)
        h = nn.swish(group_norm(self.unet.groups, jnp.float32, "output_norm", self.unet.epsilon)(h))
        return dense(self.classes, jnp.float32, "output", kernel_init=silent)(h.mean((1, 2)))
