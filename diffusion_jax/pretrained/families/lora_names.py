"""To which layer of which network an array of a LoRA belongs, by its name.

Diffusers and peft name a layer as the network does, "unet.mid_block.attentions.0.proj_in.lora_A.weight"; kohya's
scripts put underscores for its dots, "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", and for SDXL they
name the layers of the original. Underscores cannot be undone: the network's own names are written in each of these
ways, and looked up.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

UNET, TEXT, TEXT_2 = "unet", "text_encoder", "text_encoder_2"
COMPONENTS = (UNET, TEXT, TEXT_2)
DOWN, UP, ALPHA = "down", "up", "alpha"

_FLAT = {"lora_unet_": UNET, "lora_te_": TEXT, "lora_te1_": TEXT, "lora_te2_": TEXT_2}
_ENDS = {
    ".lora_A.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora.down.weight": DOWN,
    ".lora.up.weight": UP,
    ".lora_linear_layer.down.weight": DOWN,
    ".lora_linear_layer.up.weight": UP,
    ".lora_down.weight": DOWN,
    ".lora_up.weight": UP,
    "_lora.down.weight": DOWN,  # of attention's processors, "to_q_lora.down.weight"
    "_lora.up.weight": UP,
    ".alpha": ALPHA,
}
# Parts of names of what else such files hold.
OTHERS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "LoCon with a middle",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "ia3": "IA3",
}
_TEXT_MODEL = "text_model."
# What attention's processors called a layer.
_PROCESSORS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out", "to_out.0": "to_out"}
_BLOCK = re.compile(r"((down|mid|up)_block(?:s\.(\d+))?)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
# Names in the original: within blocks, and of layers that stand alone.
_WITHIN = {
    "resnets": {
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    },
    "downsamplers": {"conv": "op"},
}
_ALONE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


class Place(NamedTuple):
    """Where an array belongs.

    Attributes:
      component: one of `COMPONENTS`.
      layer: its layer as the file spells it.
      part: `DOWN`, `UP` or `ALPHA`.
    """

    component: str
    layer: str
    part: str


def place(name: str) -> Place | None:
    """Where the array of this name belongs; None where the name is none of a LoRA."""
    end = next((end for end in _ENDS if name.endswith(end)), None)
    if end is None:
        return None
    layer = name.removesuffix(end)
    flat = next((start for start in _FLAT if layer.startswith(start)), None)
    if flat is not None:
        return Place(_FLAT[flat], layer.removeprefix(flat), _ENDS[end])
    component, _, rest = layer.partition(".")
    if component not in COMPONENTS:
        component, rest = UNET, layer  # older files hold nothing but the layers of a U-Net
    return Place(component, rest.replace(".processor.", "."), _ENDS[end])


def spellings(layers: Iterable[str]) -> dict[str, list[str]]:
    """Every way in which files spell layers of a network -> the layers that it may mean, which should be one."""
    layers = list(layers)
    originals = _originals(layers)
    found: dict[str, list[str]] = defaultdict(list)
    for layer in layers:
        short = layer.removeprefix(_TEXT_MODEL)
        dotted = {short, _TEXT_MODEL + short}
        for end, old in _PROCESSORS.items():
            if short.endswith(f".{end}"):
                dotted |= {start.removesuffix(end) + old for start in (short, _TEXT_MODEL + short)}
        flat = {short, _TEXT_MODEL + short, originals.get(layer, short)}
        for spelling in dotted | {one.replace(".", "_") for one in flat}:
            found[spelling].append(layer)
    return dict(found)


def _originals(layers: Iterable[str]) -> Mapping[str, str]:
    """Layer of diffusers' U-Net -> its name in the original, which counts blocks; none where levels are not alike."""
    resnets = {match[0] for layer in layers if (match := re.match(r"(down|up)_blocks\.\d+\.resnets\.\d+", layer))}
    levels = Counter(resnet.partition(".resnets")[0] for resnet in resnets)
    down = {count for level, count in levels.items() if level.startswith("down")}
    up = {count for level, count in levels.items() if level.startswith("up")}
    if len(down) != 1 or up != {count + 1 for count in down}:
        return {}
    each = up.pop()
    attending = {layer.partition(".attentions.")[0] for layer in layers if ".attentions." in layer}
    found = dict(_ALONE)
    for layer in layers:
        match = _BLOCK.fullmatch(layer)
        if match:
            block, side, level, kind, number, rest = match.groups(default="0")
            column = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 1 + (block in attending)}[kind]
            row = each - 1 if kind in ("downsamplers", "upsamplers") else int(number)  # they come last
            start = {
                "down": f"input_blocks.{int(level) * each + row + 1}",
                "mid": f"middle_block.{2 * row + column}",
                "up": f"output_blocks.{int(level) * each + row}",
            }[side]
            within = "" if side == "mid" else f".{column}"
            found[layer] = f"{start}{within}.{_WITHIN.get(kind, {}).get(rest, rest)}"
    return found
