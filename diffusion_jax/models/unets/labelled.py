"""Images and their labels together: one network that denoises both."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.models.blocks.layers import dense
from diffusion_jax.models.unets.skeleton import Skeleton


class LabelledUNet(nn.Module):
    """A U-Net for an image and its label, which may be hidden: neither, either or both may be noise.

    The label enters as channels beside the image's, a learned vector spread over all pixels. It leaves as
    channels beside the image's, averaged over all pixels, and a dense layer. The U-Net itself is as it was.

    Attributes:
      unet: the network for the images alone; its out_channels are those of the resulting image.
      classes: labels are 0 to classes - 1, and `classes` is the mask.
      features: channels for the label, in and out.
    """

    unet: Skeleton
    classes: int
    features: int = 16

    @nn.compact
    def __call__(
        self,
        x: dict[str, jax.Array],
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """The network's raw output for noisy images and labels.

        Args:
          x: {"image": float [B, H, W, C], "label": integer [B]}. A label beyond `classes` makes its example NaN.
          time: [B], integer or float, from 0 to 1000, of both.
          cond, dropout_keys: see `UNet`.

        Returns:
          {"image": float32 [B, H, W, unet.out_channels], "label": logits float32 [B, classes + 1]}.

        Raises:
          InputError: as `UNet`.
        """
        image, label = x["image"], x["label"]
        # Of unit variance, like the image: among its channels a smaller one would not be heard for long.
        vector = nn.Embed(self.classes + 1, self.features, embedding_init=nn.initializers.normal(1.0), name="label")(
            label
        )
        beside = jnp.broadcast_to(vector[:, None, None, :], (*image.shape[:3], self.features))
        channels = self.unet.out_channels
        network = self.unet.clone(out_channels=channels + self.features, parent=self, name="network")
        out = network(jnp.concatenate([image, beside], axis=-1), time, cond, dropout_keys)
        logits = dense(self.classes + 1, jnp.float32, "output")(out[..., channels:].mean((1, 2)))
        return {"image": out[..., :channels], "label": logits}
