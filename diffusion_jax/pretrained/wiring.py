"""Of what a U-Net's table of names depends on, and the pieces that all tables are made of."""

from typing import NamedTuple

from diffusion_jax.models.unets.skeleton import of_level
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.layouts import Layout, conv, same


class Wiring(NamedTuple):
    """How many blocks of which width a U-Net has, and where (`models.unets.skeleton`).

    Attributes:
      widths: channels of each level, the full resolution first; the first convolution has those of the first level.
      blocks: residual blocks on the way down, of all levels or of each; the way up has one more.
      attention_levels: levels with attention after every residual block of the way down.
      labels: 1 where the network is told a label, 0 where it is not.
      up_attention_levels: and of the way up; None for the same.
      middle_attention: whether the middle has it.
      middle: whether there is a middle at all.
      scales: 1 where the network is told the scale of guidance, 0 where it is not.
    """

    widths: tuple[int, ...]
    blocks: int | tuple[int, ...]
    attention_levels: tuple[int, ...]
    labels: int = 0
    up_attention_levels: tuple[int, ...] | None = None
    middle_attention: bool = True
    middle: bool = True
    scales: int = 0

    @property
    def attended_up(self) -> tuple[int, ...]:
        """Levels with attention on the way up."""
        return self.attention_levels if self.up_attention_levels is None else self.up_attention_levels

    def blocks_at(self, level: int) -> int:
        """Residual blocks of a level on the way down."""
        return of_level(self.blocks, level)

    @property
    def levels(self) -> range:
        """From the full resolution down."""
        return range(len(self.widths))

    def shortcuts(self) -> frozenset[str]:
        """Names of the residual blocks that change the number of channels, which have a `shortcut`.

        On the way down that is the first of a level, if at all. On the way up it is each: it is given a skip
        connection as well, and one of the two has as many channels as it returns.
        """
        wider = (level for level in self.levels[1:] if self.widths[level] != self.widths[level - 1])
        up = (f"up_{level}_block_{i}" for level in self.levels for i in range(self.blocks_at(level) + 1))
        return frozenset(f"down_{level}_block_0" for level in wider) | frozenset(up)


def affine(theirs: str, ours: str, layout: Layout = conv) -> list[Entry]:
    """A layer with a kernel and a bias."""
    return [*unbiased(theirs, ours, layout), Entry(f"{theirs}.bias", (f"{ours}/bias",), same)]


def unbiased(theirs: str, ours: str, layout: Layout) -> list[Entry]:
    """A layer with a kernel alone."""
    return [Entry(f"{theirs}.weight", (f"{ours}/kernel",), layout)]


def norm(theirs: str, ours: str) -> list[Entry]:
    """A normalisation's scale and bias."""
    return [Entry(f"{theirs}.weight", (f"{ours}/scale",), same), Entry(f"{theirs}.bias", (f"{ours}/bias",), same)]


def labels(theirs: str, wiring: Wiring) -> list[Entry]:
    """The table of labels, of networks that have one."""
    return [Entry(f"{theirs}.weight", ("embed_label/embedding",), same)] * wiring.labels
