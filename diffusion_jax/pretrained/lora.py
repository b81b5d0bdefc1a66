"""LoRA: files of low-rank updates, W + s alpha / r B A, added to published weights (Hu et al. 2021, section 4.1)."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import once
from diffusion_jax.pretrained.families import lora_names
from diffusion_jax.pretrained.families.lora_names import ALPHA, COMPONENTS, DOWN, UP
from diffusion_jax.pretrained.formats import safetensors_file
from diffusion_jax.pretrained.formats.stored import Stored
from diffusion_jax.pretrained.published import shown

CONFIG = "lora_adapter_metadata"  # of a file: peft's config, as diffusers writes it
# What peft's config may ask for that is not done here. What else it says is about training, or stands in the arrays.
REFUSED = (
    *("use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "layer_replication", "trainable_token_indices"),
    *("use_qalora", "use_bdlora", "target_parameters"),
)


class Lora(NamedTuple):
    """A file of safetensors, and how much of it is added.

    Attributes:
      path: the file, of diffusers, of peft, or of kohya's scripts.
      scale: s, 1 as it was trained.
    """

    path: str | Path
    scale: float = 1.0


class Update(NamedTuple):
    """What is added to a weight: `scale` times `up` [out, r, ...] times `down` [r, in, ...]."""

    down: Stored
    up: Stored
    scale: float


class Merged(NamedTuple):
    """A weight and what is added to it, computed by `np.asarray(merged)` and not before.

    It is summed in float32, or wider where the weight is, and has the weight's shape and dtype.
    """

    weight: Stored
    updates: tuple[Update, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the weight."""
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        """As of the weight."""
        return self.weight.dtype

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        wide = np.promote_types(np.float32, self.dtype)
        total = np.asarray(self.weight).astype(wide)
        for down, up, scale in self.updates:
            rank = down.shape[0]
            low, high = np.asarray(down).astype(wide).reshape(rank, -1), np.asarray(up).astype(wide).reshape(-1, rank)
            total += scale * (high @ low).reshape(self.shape)
        with np.errstate(over="ignore"):  # `entries.read` refuses what is not finite
            return total.astype(self.dtype if dtype is None else dtype)


def merged(weights: Mapping[str, Any], loras: Sequence[Lora], component: str) -> dict[str, Any]:
    """The weights of a network with those of LoRAs added; what `pretrained.entries.read` takes.

    Linear layers and convolutions are known. Arrays of other components are left to their own call: `check` refuses
    those that no component of a pipeline takes.

    Args:
      weights: name -> `Stored`, of a component by diffusers' names.
      loras: the files.
      component: of a pipeline, one of `families.lora_names.COMPONENTS`.

    Returns:
      The same names, with arrays as they were, or `Merged`; nothing is read yet but the files' headers and alphas.

    Raises:
      InputError: an array is of a LoRA of another network, or of another method; the file and the array are named.
    """
    layers = {name.removesuffix(".weight"): weights[name] for name in weights if name.endswith(".weight")}
    layers = {layer: weight for layer, weight in layers.items() if len(weight.shape) in (2, 4)}
    spelled = lora_names.spellings(layers)
    updates: dict[str, list[Update]] = defaultdict(list)
    for lora in loras:
        if not math.isfinite(lora.scale):
            raise InputError(f"{lora.path} times {lora.scale}; the scale of a LoRA is a finite number")
        parts: dict[str, dict[str, tuple[str, Stored]]] = defaultdict(dict)
        for name, where, array in _places(lora.path):
            if where.component != component:
                continue
            what = f"{lora.path}: {shown(name)}"
            meant = spelled.get(where.layer, [])
            if len(meant) != 1:
                reason = "fits no layer" if not meant else f"may be each of {', '.join(meant)}"
                raise InputError(f"{what} {reason} of this {component}; it is a LoRA of another network")
            if where.part in parts[meant[0]]:
                raise InputError(f"{what} comes twice, as {shown(parts[meant[0]][where.part][0])} too; get it again")
            parts[meant[0]][where.part] = name, array
        config = _config(lora.path, component) if parts else {}
        for layer, found in parts.items():
            updates[layer].append(_update(lora, layer, found, layers[layer], config))
    changed = {f"{layer}.weight": Merged(layers[layer], tuple(added)) for layer, added in updates.items()}
    return {**weights, **changed}


def check(loras: Iterable[Lora], components: Iterable[str]) -> None:
    """Raise `InputError` where a LoRA is one of a component that a pipeline has not, or of none."""
    components = tuple(components)
    for lora in loras:
        for name, where, _ in _places(lora.path):
            if where.component not in components:
                has = ", ".join(components)
                raise InputError(f"{lora.path}: {shown(name)} is of {where.component}; this pipeline has {has}")


def _places(path: str | Path) -> list[tuple[str, lora_names.Place, Stored]]:
    """Name, place and array of all that is in a file, whose every array is one of a LoRA."""
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: LoRAs are read from files named .safetensors; convert it to one")
    arrays = safetensors_file.load(path)
    if not arrays:
        raise InputError(f"{path} holds no arrays; it is no LoRA")
    found = []
    for name, array in arrays.items():
        where = lora_names.place(name)
        if where is None:
            method = next((method for part, method in lora_names.OTHERS.items() if part in name), None)
            if method is not None:
                raise InputError(f"{path}: {shown(name)} is one of {method}; only LoRA is known here")
            raise InputError(
                f"{path}: {shown(name)} is none of a LoRA's arrays, which are named as in peft or kohya's"
            )
        if not jnp.issubdtype(array.dtype, jnp.floating) and where.part != ALPHA:
            raise InputError(f"{path}: {shown(name)} is of type {array.dtype}; a LoRA holds floats")
        found.append((name, where, array))
    return found


def _update(
    lora: Lora, layer: str, found: Mapping[str, tuple[str, Stored]], weight: Any, config: Mapping[str, Any]
) -> Update:
    for part in (DOWN, UP):
        if part not in found:
            name = next(iter(found.values()))[0]
            raise InputError(f"{lora.path}: {shown(name)} has no {part} beside it; get the file again")
    (_, down), (name, up) = found[DOWN], found[UP]
    rank = down.shape[0] if down.shape else 0
    wanted = (rank, *weight.shape[1:]), (weight.shape[0], rank)
    if not rank or (_trimmed(down.shape), _trimmed(up.shape)) != tuple(map(_trimmed, wanted)):
        shapes = f"{up.shape} times {down.shape}, for a weight {tuple(weight.shape)}"
        raise InputError(
            f"{lora.path}: {shown(name)} does not fit {layer} ({shapes}); it is a LoRA of another network"
        )
    alpha = _number(found[ALPHA][1], f"{lora.path}: {shown(found[ALPHA][0])}") if ALPHA in found else None
    if alpha is not None and config:
        raise InputError(f"{lora.path}: {shown(found[ALPHA][0])} and {CONFIG} both say alpha; take one of them out")
    if config:
        return Update(down, up, lora.scale * _factor(config, layer, rank, f"{lora.path}: {CONFIG}"))
    return Update(down, up, lora.scale * (1.0 if alpha is None else alpha / rank))


def _trimmed(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without the two last axes of a convolution of one pixel, which is a linear layer."""
    return tuple(shape[:2]) if len(shape) == 4 and tuple(shape[2:]) == (1, 1) else tuple(shape)


def _number(array: Stored, what: str) -> float:
    if math.prod(array.shape) != 1:
        raise InputError(f"{what} has the shape {array.shape}; alpha is one number")
    alpha = float(np.asarray(array).astype(np.float64).reshape(()))
    if not math.isfinite(alpha):
        raise InputError(f"{what} is {alpha}; alpha is a finite number")
    return alpha


def _config(path: str | Path, component: str) -> dict[str, Any]:
    """Peft's config of a component, as far as a file has one; else nothing."""
    text = safetensors_file.metadata(path).get(CONFIG, "{}")
    what = f"{path}: {CONFIG}"
    try:
        whole = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not JSON ({str(error)[:80]})") from error
    if type(whole) is not dict:
        raise InputError(f"{what} is no object of names and values")
    names = {name: name.partition(".")[::2] for name in whole}
    other = [name for name, (owner, _) in names.items() if owner not in COMPONENTS]
    if other:
        raise InputError(f"{what}: {shown(other[0])} is of none of {', '.join(COMPONENTS)}; it is another's LoRA")
    config = {rest: whole[name] for name, (owner, rest) in names.items() if owner == component}
    asked = [name for name in REFUSED if config.get(name)]
    if asked:
        raise InputError(f"{what}: {asked[0]} = {shown(config[asked[0]])} is not supported; only LoRA's sum is")
    return config


def _factor(config: Mapping[str, Any], layer: str, rank: int, what: str) -> float:
    """alpha / r of a layer, or alpha / sqrt r where the config says so (Kalajdzievski 2023)."""
    alpha, patterns = config.get("lora_alpha", 8), config.get("alpha_pattern") or {}
    if type(patterns) is not dict:
        raise InputError(f"{what}: alpha_pattern = {shown(patterns)} is no object of layers and numbers")
    for pattern, value in patterns.items():
        # Peft takes patterns for regular expressions, but writes names: those are compared, so none takes forever.
        name = pattern.removeprefix("^")
        if not re.fullmatch(r"[\w.]+", name):
            raise InputError(
                f"{what}: the pattern {shown(pattern)} is none of letters and dots; write out its layers"
            )
        if layer == name or (pattern == name and layer.endswith(f".{name}")):
            alpha = value
            break
    if type(alpha) not in (int, float) or not abs(alpha) < 1e30:
        raise InputError(f"{what}: alpha = {shown(alpha)} of {layer} is no finite number")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
