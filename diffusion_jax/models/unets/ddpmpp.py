"""DDPM++ (Song et al. 2021, appendix H), as EDM trains it (Karras et al. 2022)."""

import math
from typing import ClassVar

from flax import linen as nn

from diffusion_jax.core.protocols import Layer, MakeLayer
from diffusion_jax.models.blocks.layers import ENLARGED, HALVED, AttentionBlock, Resampling, ResBlock
from diffusion_jax.models.unets.skeleton import Parts, Skeleton, of_level


class DDPMpp(Skeleton):
    """DDPM's blocks; between levels they change the size themselves, and every residual sum is divided by sqrt(2).

    On the way up attention stands once on a level, after its blocks. The defaults are EDM's CIFAR-10 network, of
    55,732,739 parameters. Of labels and of an augmentation its time's sinusoid is told (`embed_early`).
    """

    multipliers: tuple[float, ...] = (2, 2, 2)
    blocks: int = 4
    dropout: float = 0.13

    down_way: ClassVar[Resampling] = HALVED
    up_way: ClassVar[Resampling] = ENLARGED

    def parts(self) -> Parts:
        """Residual sums that are rescaled; residual blocks between levels."""
        block, attention = self.wrap(ResBlock), self.wrap(AttentionBlock)
        norm = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self.dtype}
        same = norm | {"activation": self.activation}

        def resampled(way: Resampling) -> MakeLayer:
            fields = same | {"resampling": way, "projected": True}
            return lambda features, name: _rescaled(block(features, self.dropout, **fields, name=name))

        def attending(level, features, name):
            return _rescaled(attention(**norm, attend=self.attend, name=name))

        return Parts(
            block=lambda features, name: _rescaled(block(features, self.dropout, **same, name=name)),
            attention=attending,
            down=resampled(self.down_way),
            up=resampled(self.up_way),
        )

    @nn.nowrap
    def attends_up(self, level: int, block: int) -> bool:
        """After the last block."""
        return block == of_level(self.blocks, level)


def _rescaled(layer: Layer) -> Layer:
    """The layer, a residual sum of two, of the variance of one."""
    return lambda h, context: layer(h, context) / math.sqrt(2)
