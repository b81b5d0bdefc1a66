"""DDPM's U-Net with what diffusers' UNet2DModel leaves open, as latent diffusion's unconditional models have it."""

import jax

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.protocols import EncodeTime, Heads
from diffusion_jax.models.blocks.fourier import FourierFeatures
from diffusion_jax.models.blocks.layers import SAME, AttentionBlock, Downsample, cosinusoid
from diffusion_jax.models.unets.adm import heads_of_width
from diffusion_jax.models.unets.skeleton import Parts
from diffusion_jax.models.unets.unet import UNet


class OpenUNet(UNet):
    """DDPM's U-Net, with what diffusers' UNet2DModel leaves open. The defaults are those of diffusers.

    Attributes, beside those of `Skeleton`:
      heads: `features -> number of heads` (`adm.heads_of_width`, `adm.heads_always`).
      padding: of the strided convolutions, ((top, bottom), (left, right)).
      encode_time: how the time is told (`layers.sinusoid`, `layers.cosinusoid`).
      epsilon: of the normalisations.
    """

    heads: Heads = heads_of_width(8)
    padding: tuple = SAME
    encode_time: EncodeTime = cosinusoid  # type: ignore[assignment]  # arguments by place
    epsilon: float = 1e-5

    def parts(self) -> Parts:
        """DDPM's, with these heads and this padding."""
        attention = self.wrap(AttentionBlock)
        rest = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype, "attend": self.attend}
        return (
            super()
            .parts()
            ._replace(
                attention=lambda level, features, name: attention(self.heads(features), **rest, name=name),
                down=lambda features, name: Downsample(self.padding, dtype=self.dtype, name=name),
            )
        )


class FourierUNet(OpenUNet):
    """`OpenUNet` that is told noise levels by Fourier features, and divides by them what it says: it says a score.

    Fields as of `OpenUNet`; time is a noise level, above 0. The frequencies are parameters, "encode_time/weight".
    """

    encode_time: EncodeTime = FourierFeatures()

    def __call__(self, x, time, *inputs) -> jax.Array:
        """As of `Skeleton`."""
        output = super().__call__(x, time, *inputs)
        return output / expand(time.astype(output.dtype), output)
