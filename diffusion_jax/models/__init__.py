"""Flax Linen networks. They know nothing of training, processes or configuration."""

from diffusion_jax.models.unet import UNet

__all__ = ["UNet"]
