"""OpenAI's U-Nets by the flags of their command lines, for their files hold weights alone (*.pt).

improved-diffusion (Nichol & Dhariwal 2021) and guided-diffusion (Dhariwal & Nichol 2021) print the flags of every
published file; `torch_file.load` reads it. Whole command lines are read by `openai_command`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.unets.adm import AdditiveUNet, ADMUNet, ImprovedUNet, heads_always, heads_of_width
from diffusion_jax.models.unets.open import OpenUNet
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.pretrained.families import openai_names as names
from diffusion_jax.pretrained.published import LARGEST, LAYERS, LEVELS, SIDE, Network, Values, shape
from diffusion_jax.pretrained.wiring import Wiring

FLAGS = {
    "image_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "dropout": 0.0,
    "class_cond": False,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "learn_sigma": False,
    # How they compute, not what.
    "use_checkpoint": False,
    "use_fp16": False,
}
MULTIPLIERS = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
CLASSES = 1000


def unet(flags: Mapping[str, Any]) -> Network:
    """The network of a file, which is told "label" with the flag class_cond.

    Args:
      flags: those of `FLAGS` that were given, as numbers, strings and booleans; the others are as by default.
        For 64x64_diffusion.pt: image_size=64, class_cond=True, learn_sigma=True, num_channels=192,
        num_head_channels=64, num_res_blocks=3, attention_resolutions="32,16,8", resblock_updown=True,
        use_new_attention_order=True.

    Raises:
      InputError: an unknown flag, or a network that is not known here.
    """
    values = Values(flags, FLAGS, "OpenAI's U-Net")
    size, channels = values.integer("image_size", most=SIDE), values.integer("num_channels")
    multipliers = _listed(values, "channel_mult") or MULTIPLIERS.get(size)
    widths = tuple(int(channels * m) for m in multipliers or ())
    first = widths[0] if widths else 0
    if not first or max(widths) > LARGEST or len(widths) > LEVELS:
        wanted = f"1 to {LEVELS} multiples of num_channels are expected for image_size {size}"
        values.refuse("channel_mult", values["channel_mult"], wanted)
    wiring = Wiring(
        widths,
        values.integer("num_res_blocks", most=LAYERS),
        _attention_levels(values, size, len(widths)),
        int(values.only("class_cond", False, True)),
    )
    values.only("num_heads_upsample", -1, values["num_heads"])
    if values["num_head_channels"] == -1:
        heads = heads_always(values.integer("num_heads"))
    else:
        heads = heads_of_width(values.integer("num_head_channels"))
    build = _kind(values)
    model = build(
        heads=heads,
        channels=first,
        multipliers=tuple(width / first for width in widths),
        blocks=wiring.blocks,
        attention_levels=wiring.attention_levels,
        out_channels=6 if values.only("learn_sigma", False, True) else 3,
        dropout=values.number("dropout", 0.0, 1.0),
        embed={"label": LabelEmbedding(CLASSES)} if wiring.labels else {},
        time_features=channels,
    )
    newer = values.only("use_new_attention_order", False, True)
    attention = names.one_by_one if newer else names.head_by_head(heads)
    residual = values["resblock_updown"]
    between = (names.residual, names.residual) if residual else (names.down_convolution, names.up_convolution)
    side = 2 ** wiring.levels[-1]
    example = shape(1, side, side, 3), shape(1), {"label": shape(1, dtype=int)} if wiring.labels else None
    return Network(model, example, names.unet(wiring, attention, *between))


def _kind(values: Values) -> Callable[..., Skeleton]:
    modulated = values.only("use_scale_shift_norm", False, True)
    residual = values.only("resblock_updown", False, True)
    return {
        (True, True): ADMUNet,
        (True, False): ImprovedUNet,
        (False, True): AdditiveUNet,
        (False, False): OpenUNet,
    }[modulated, residual]


def _attention_levels(values: Values, size: int, levels: int) -> tuple[int, ...]:
    """Levels of the flag's resolutions; those that the network does not reach have no effect there either."""
    factors = [size // resolution for resolution in _listed(values, "attention_resolutions")]
    return tuple(level for level in range(levels) if 2**level in factors)


def _listed(values: Values, name: str) -> tuple[int, ...]:
    """Positive integers in a string, with commas between."""
    try:
        found = tuple(int(number) for number in str(values[name]).split(",") if number.strip())
    except ValueError:
        found = (0,)
    if any(number < 1 for number in found):
        values.refuse(name, values[name], "positive integers with commas between are expected")
    return found
