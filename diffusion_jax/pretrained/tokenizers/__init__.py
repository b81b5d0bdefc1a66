"""Tokenizers of published text encoders, CLIP's and T5's: `opened` reads a pipeline's folder of one,
and `save` writes it again."""

from diffusion_jax.pretrained.tokenizers.folders import opened, save
from diffusion_jax.pretrained.tokenizers.tokens import Cut, EncodeTexts, Tokenizer, Tokens

__all__ = ["Cut", "EncodeTexts", "Tokenizer", "Tokens", "opened", "save"]
