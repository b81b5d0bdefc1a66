"""Flax Linen networks. They know nothing of training, processes or configuration.

All are called with (x, time, cond=None, dropout_keys=None); what may be in `cond` is said in `models.conditioning`.
"""

from diffusion_jax.models.adm import AdditiveUNet, ADMUNet, ImprovedUNet
from diffusion_jax.models.beside import Beside
from diffusion_jax.models.classifier import Classifier
from diffusion_jax.models.controlnet import Controlled, ControlNet
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.mlp import MLP
from diffusion_jax.models.ncsnpp import NCSNpp
from diffusion_jax.models.super_resolution import SuperResolution
from diffusion_jax.models.text_unet import TextUNet
from diffusion_jax.models.unet import UNet

__all__ = [
    "MLP",
    "ADMUNet",
    "AdditiveUNet",
    "Beside",
    "Classifier",
    "ControlNet",
    "Controlled",
    "DiT",
    "ImprovedUNet",
    "NCSNpp",
    "SuperResolution",
    "TextUNet",
    "UNet",
]
