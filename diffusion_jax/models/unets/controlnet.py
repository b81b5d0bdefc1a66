"""ControlNet (Zhang, Rao & Agrawala 2023): a copy of a U-Net's way down that sees a hint and steers the original."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.conditioning import apart
from diffusion_jax.models.blocks.layers import conv3x3, dense, strided
from diffusion_jax.models.unets.skeleton import Skeleton

HINT = "hint"
closed = nn.initializers.zeros_init()  # exactly zero: the original is untouched at first


class HintEncoder(nn.Module):
    """Convolutions that bring a hint to the size and channels of the U-Net's first map.

    [B, s H, s W, C] -> [B, H, W, features] with s = 2^(len(channels) - 1): 3x3 and swish, then for each next width
    two more, the second of stride 2, and a 3x3 that starts at zero.

    Attributes:
      channels: widths, from the hint's size on; ControlNet's (16, 32, 96, 256) shrink it by 8, to that of latents.
      dtype: of the convolutions.
    """

    channels: tuple[int, ...] = (16, 32, 96, 256)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, hint: jax.Array, features: int) -> jax.Array:
        h = nn.swish(conv3x3(self.channels[0], self.dtype, "input_conv")(hint))
        for i in range(len(self.channels) - 1):
            same, wider = self.channels[i : i + 2]
            h = nn.swish(conv3x3(same, self.dtype, f"conv_{2 * i}")(h))
            h = nn.swish(conv3x3(wider, self.dtype, f"conv_{2 * i + 1}", strided())(h))
        return conv3x3(features, self.dtype, "output_conv", kernel_init=closed)(h)


class ControlNet(nn.Module):
    """What a hint adds to every skip connection of a U-Net, and to its middle.

    Its parameters are those of the way down and the middle of `unet`, by the same names, so that they can start as
    a copy; a `HintEncoder`; and 1x1 layers that start at zero.

    Attributes:
      unet: any U-Net; it gives the wiring, and no parameters.
      hint: the encoder.
    """

    unet: Skeleton
    hint: HintEncoder

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array],
        dropout_keys: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Residuals for `unet`'s call, one for each skip connection and one for the middle.

        Args:
          x, time, dropout_keys: as of `unet`.
          cond: what `unet` is told, and "hint", float [B, s H, s W, C].

        Raises:
          InputError: as of `unet`, or the hint is missing or of another size.
        """
        hint, rest = apart(cond, HINT, "a ControlNet")

        def inward(h):
            seen = self.hint(hint, h.shape[-1])
            if seen.shape != h.shape:
                factor = 2 ** (len(self.hint.channels) - 1)
                raise InputError(
                    f"a hint of {hint.shape[1]}x{hint.shape[2]} for {h.shape[1]}x{h.shape[2]}: "
                    f"this encoder takes {h.shape[1] * factor}x{h.shape[2] * factor}; resize the hint"
                )
            return h + seen

        def own(embed, prefix):  # by the U-Net's names, and not within its scope
            return {name: module.clone(parent=self, name=f"{prefix}_{name}") for name, module in embed.items()}

        embeddings = {
            "embed": own(self.unet.embed, "embed"),
            "embed_early": own(self.unet.embed_early, "embed_early"),
        }
        unet = self.unet.clone(parent=None, **embeddings)
        middle, skips, _ = unet.encode(x, time, rest, dropout_keys, inward)
        names = [f"control_{k}" for k in range(len(skips))] + ["control_middle"]
        return [
            dense(h.shape[-1], self.unet.dtype, name, kernel_init=closed)(h)
            for name, h in zip(names, [*skips, middle], strict=True)
        ]


class Controlled(nn.Module):
    """A U-Net and the ControlNet that steers it, as one network; at initialisation it is the U-Net, exactly.

    Parameters: {"unet": the U-Net's, "control": the ControlNet's}.

    Attributes:
      unet: any U-Net.
      hint: encodes the hint.
      scale: of the residuals; 1 is the published strength.
    """

    unet: Skeleton
    hint: HintEncoder
    scale: float = 1.0

    def setup(self):
        self.control = ControlNet(self.unet.clone(parent=None, name=None), self.hint.clone(parent=None, name=None))

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array],
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """float32 [B, H, W, out_channels]; arguments as of `ControlNet`."""
        residuals = self.control(x, time, cond, dropout_keys)
        _, rest = apart(cond, HINT, "a ControlNet")
        return self.unet(x, time, rest, dropout_keys, [self.scale * r for r in residuals])


def from_base(params: Mapping[str, Any]):
    """Parameters of `Controlled` whose ControlNet starts as a copy of the U-Net's way down (section 3.1)."""
    control = params["control"]
    copied = {name: value for name, value in params["unet"].items() if name in control}
    return {"unet": params["unet"], "control": control | copied}
