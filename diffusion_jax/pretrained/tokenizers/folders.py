"""A tokenizer's folder of a pipeline, read."""

from pathlib import Path

from diffusion_jax.pretrained.tokenizers.tokens import Tokenizer


def opened(folder: Path, length: int | None = None) -> Tokenizer:
    """The tokenizer of a folder."""
    raise NotImplementedError
