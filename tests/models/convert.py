"""diffusers' UNet2DModel (any one with DDPM's wiring) into our parameter tree."""

import re

import numpy as np

TOP = {
    "conv_in": "input_conv",
    "time_embedding.linear_1": "time_embedding/dense_0",
    "time_embedding.linear_2": "time_embedding/dense_1",
    "conv_norm_out": "output_norm",
    "conv_out": "output_conv",
}
RESNET = {
    "norm1": "norm_0",
    "conv1": "conv_0",
    "time_emb_proj": "time",
    "norm2": "norm_1",
    "conv2": "conv_1",
    "conv_shortcut": "shortcut",
}
ATTENTION = {"group_norm": "norm", "to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"}


def module_path(name: str, levels: int) -> str:
    """Our path of a module from its name in diffusers; diffusers counts the way up from the lowest level."""
    if name in TOP:
        return TOP[name]
    way, stage, part, index, layer = re.fullmatch(
        r"(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.+)", name
    ).groups()
    if way == "mid":
        prefix = "middle"
    else:
        prefix = f"{way}_{int(stage) if way == 'down' else levels - 1 - int(stage)}"
    if part == "resnets":
        return f"{prefix}_block_{index}/{RESNET[layer]}"
    if part == "attentions":
        return f"{prefix}_attention{'' if way == 'mid' else f'_{index}'}/{ATTENTION[layer]}"
    return f"{prefix}_{part.removesuffix('rs')}/{layer}"


def leaf(kind: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """Our name and layout of a leaf: OIHW -> HWIO, [out, in] and 1x1 -> [in, out], norm's weight -> scale."""
    if kind == "bias":
        return "bias", value
    if value.ndim == 1:
        return "scale", value
    if value.ndim == 4 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]
    return "kernel", value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def convert(state: dict[str, np.ndarray], levels: int) -> dict[str, np.ndarray]:
    """Name -> array of diffusers (weights or their gradients) to our path, "a/b/kernel" -> array."""
    converted = {}
    for name, value in state.items():
        module, kind = name.rsplit(".", 1)
        kind, value = leaf(kind, value)
        converted[f"{module_path(module, levels)}/{kind}"] = value
    return converted
