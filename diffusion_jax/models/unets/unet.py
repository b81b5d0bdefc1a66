"""The U-Net of DDPM (Ho et al. 2020, section 4 and appendix B), layer for layer as in its official code."""

from diffusion_jax.models.blocks.layers import AttentionBlock, Downsample, ResBlock, Upsample
from diffusion_jax.models.unets.skeleton import Parts, Skeleton


class UNet(Skeleton):
    """DDPM's U-Net. The defaults are its CIFAR-10 network, of 35,746,307 parameters.

    For 256x256 the paper takes multipliers (1, 1, 2, 2, 4, 4) and attention_levels (4,).

    Fields as of `Skeleton`.
    """

    def parts(self) -> Parts:
        """Residual blocks to which the time is added, attention of one head, convolutions between levels."""
        block, attention = self.wrap(ResBlock), self.wrap(AttentionBlock)
        norm = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype}
        return Parts(
            block=lambda features, name: block(features, self.dropout, **norm, activation=self.activation, name=name),
            attention=lambda level, features, name: attention(**norm, attend=self.attend, name=name),
            down=lambda features, name: Downsample(dtype=self.dtype, name=name),
            up=lambda features, name: Upsample(dtype=self.dtype, name=name),
        )
