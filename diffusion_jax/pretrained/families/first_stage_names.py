"""Names of the weights of first stages (`models.autoencoders`): diffusers', and latent diffusion's own before it.

Ours count levels from the full resolution. So does the way up of latent diffusion's files; diffusers' counts from the
lowest.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from diffusion_jax.models.autoencoders.convolutional import ConvolutionalAutoencoder
from diffusion_jax.models.autoencoders.tiny import TinyAutoencoder
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.layouts import Layout, conv, linear, pointwise
from diffusion_jax.pretrained.wiring import affine, norm, unbiased

CODEBOOK = "quantize.embedding.weight"


class Naming(NamedTuple):
    """How files name the parts of a half.

    Attributes:
      down, up: a level's way: `{}` is its number, of `up` as `counted` says.
      from_lowest: whether `up` counts from the lowest level.
      block, shortcut: a residual block `{}` of a level; its 1x1.
      attention: attention `{}` of a level.
      smaller, larger: what follows a level.
      middle: the parts of the middle: block, attention, block.
      attends: normalisation, query, key, value and output of attention.
      projection: how these are laid out.
      last: the normalisation before the last convolution.
    """

    down: str
    up: str
    from_lowest: bool
    block: str
    shortcut: str
    attention: str
    smaller: str
    larger: str
    middle: tuple[str, str, str]
    attends: tuple[str, str, str, str, str]
    projection: Layout
    last: str

    def way_up(self, level: int, levels: int) -> str:
        """The name of the way up of a level."""
        return self.up.format(levels - 1 - level if self.from_lowest else level)


DIFFUSERS = Naming(
    down="down_blocks.{}",
    up="up_blocks.{}",
    from_lowest=True,
    block="resnets.{}",
    shortcut="conv_shortcut",
    attention="attentions.{}",
    smaller="downsamplers.0.conv",
    larger="upsamplers.0.conv",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    attends=("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    projection=linear,
    last="conv_norm_out",
)
BEFORE = DIFFUSERS._replace(attends=("group_norm", "query", "key", "value", "proj_attn"))
LATENT_DIFFUSION = Naming(
    down="down.{}",
    up="up.{}",
    from_lowest=False,
    block="block.{}",
    shortcut="nin_shortcut",
    attention="attn.{}",
    smaller="downsample.conv",
    larger="upsample.conv",
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    attends=("norm", "q", "k", "v", "proj_out"),
    projection=pointwise,
    last="norm_out",
)


def of(weights: Iterable[str]) -> Naming:
    """The naming of a file with these arrays; `DIFFUSERS` where there is none."""
    names = list(weights)
    if any(name.endswith(f".{BEFORE.attends[-1]}.weight") for name in names):
        return BEFORE
    theirs = any(name.startswith(f"encoder.{LATENT_DIFFUSION.down.format(0)}.") for name in names)
    return LATENT_DIFFUSION if theirs else DIFFUSERS


def convolutional(model: ConvolutionalAutoencoder, naming: Naming) -> list[Entry]:
    """The table of an autoencoder; of its codebook, where it has one, `codebook`."""
    codes = [*affine("quant_conv", "to_code", pointwise), *affine("post_quant_conv", "from_code", pointwise)]
    return [*_half(model, naming, "encoder"), *_half(model, naming, "decoder"), *(codes if model.dim else ())]


def codebook() -> list[Entry]:
    """The table of a codebook [K, d], which lies beside the network's own parameters."""
    return [Entry(CODEBOOK, ("codebook",))]


def tiny(model: TinyAutoencoder) -> list[Entry]:
    """The table of a TAESD."""
    return [*_tiny_encoder(model), *_tiny_decoder(model)]


def _half(model: ConvolutionalAutoencoder, naming: Naming, half: str) -> Iterator[Entry]:
    yield from affine(f"{half}.conv_in", f"{half}/input_conv")
    levels = len(model.widths)
    for level in range(levels):
        if half == "encoder":
            theirs, ours, count = naming.down.format(level), f"down_{level}", model.blocks
            wider, follows = level > 0 and model.widths[level - 1] != model.widths[level], level < levels - 1
            between = naming.smaller, "downsample"
        else:
            theirs, ours, count = naming.way_up(level, levels), f"up_{level}", model.blocks + 1
            wider, follows = level < levels - 1 and model.widths[level + 1] != model.widths[level], level > 0
            between = naming.larger, "upsample"
        theirs, ours = f"{half}.{theirs}", f"{half}/{ours}"
        for i in range(count):
            yield from _block(f"{theirs}.{naming.block.format(i)}", f"{ours}_block_{i}")
            if wider and i == 0:
                shortcut = f"{theirs}.{naming.block.format(0)}.{naming.shortcut}"
                yield from affine(shortcut, f"{ours}_block_0/shortcut", pointwise)
            if level in model.attention_levels:
                yield from _attention(f"{theirs}.{naming.attention.format(i)}", f"{ours}_attention_{i}", naming)
        if follows:
            yield from affine(f"{theirs}.{between[0]}", f"{ours}_{between[1]}/conv")
    first, attention, second = (f"{half}.{part}" for part in naming.middle)
    yield from _block(first, f"{half}/middle_block_0")
    if model.middle_attention:
        yield from _attention(attention, f"{half}/middle_attention", naming)
    yield from _block(second, f"{half}/middle_block_1")
    yield from norm(f"{half}.{naming.last}", f"{half}/output_norm")
    yield from affine(f"{half}.conv_out", f"{half}/output_conv")


def _block(theirs: str, ours: str) -> list[Entry]:
    return [
        *norm(f"{theirs}.norm1", f"{ours}/norm_0"),
        *affine(f"{theirs}.conv1", f"{ours}/conv_0"),
        *norm(f"{theirs}.norm2", f"{ours}/norm_1"),
        *affine(f"{theirs}.conv2", f"{ours}/conv_1"),
    ]


def _attention(theirs: str, ours: str, naming: Naming) -> list[Entry]:
    first, *rest = naming.attends
    pairs = zip(rest, ("query", "key", "value", "out"), strict=True)
    return [
        *norm(f"{theirs}.{first}", f"{ours}/norm"),
        *(e for a, b in pairs for e in affine(f"{theirs}.{a}", f"{ours}/{b}", naming.projection)),
    ]


# ---- TAESD: places of one long sequence of layers.


def _tiny_encoder(model: TinyAutoencoder) -> Iterator[Entry]:
    yield from affine("encoder.layers.0", "encoder/input_conv")
    place = 1
    for number, blocks in enumerate(model.encoder_blocks):
        if number:
            yield from unbiased(f"encoder.layers.{place}", f"encoder/level_{number}_downsample", conv)
            place += 1
        for i in range(blocks):
            yield from _tiny_block(f"encoder.layers.{place + i}", f"encoder/level_{number}_block_{i}")
        place += blocks
    yield from affine(f"encoder.layers.{place}", "encoder/output_conv")


def _tiny_decoder(model: TinyAutoencoder) -> Iterator[Entry]:
    yield from affine("decoder.layers.0", "decoder/input_conv")
    place = 2  # a relu stands between
    for number, blocks in enumerate(model.decoder_blocks):
        for i in range(blocks):
            yield from _tiny_block(f"decoder.layers.{place + i}", f"decoder/level_{number}_block_{i}")
        place += blocks
        if number < len(model.decoder_blocks) - 1:  # enlarging is a layer too
            yield from unbiased(f"decoder.layers.{place + 1}", f"decoder/level_{number}_upsample", conv)
            place += 2
    yield from affine(f"decoder.layers.{place}", "decoder/output_conv")


def _tiny_block(theirs: str, ours: str) -> list[Entry]:
    return [e for i in range(3) for e in affine(f"{theirs}.conv.{2 * i}", f"{ours}/conv_{i}")]
