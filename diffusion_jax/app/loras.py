"""The LoRAs that a person names: FILE, or FILE:SCALE."""

from collections.abc import Sequence
from pathlib import Path

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.lora import Lora


def parsed(texts: Sequence[str] | None) -> tuple[Lora, ...]:
    """What `--lora style.safetensors:0.5` and its like name, in turn; a file whose name ends so is taken as it is.

    Raises:
      InputError: there is no such file, what follows the colon is no number, or a file is named twice.
    """
    found = tuple(map(_parsed, texts or ()))
    paths = [Path(lora.path).resolve() for lora in found]
    for path, lora in zip(paths, found, strict=True):
        if paths.count(path) > 1:
            raise InputError(f"--lora {lora.path} is given twice; give it once, with the sum of both scales")
    return found


def tag(texts: Sequence[str] | None) -> str | None:
    """LoRAs as a part of a folder's name: "style-0.5_faces"."""
    named = [(Path(lora.path).stem, lora.scale) for lora in parsed(texts)]
    return "_".join(stem if scale == 1 else f"{stem}-{scale:g}" for stem, scale in named) or None


def _parsed(text: str) -> Lora:
    path, colon, scale = text.rpartition(":")
    if not colon or Path(text).is_file():
        path, scale = text, "1"
    try:
        lora = Lora(path, float(scale))
    except ValueError as error:
        raise InputError(f"--lora {text[:200]}: {scale[:50]!r} is no number; give FILE or FILE:SCALE") from error
    if not Path(path).is_file():
        raise InputError(f"--lora {text[:200]}: there is no file {path[:200]}")
    return lora
