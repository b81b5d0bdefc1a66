"""Encoders of texts and pictures, which diffusion models are told by: CLIP (`clip`), T5 (`t5`)."""
