"""Flax Linen networks. They know nothing of training, processes or configuration.

All are called with (x, time, cond=None, dropout_keys=None); `models.blocks.conditioning` says what may be in `cond`.
"""

from diffusion_jax.models.autoregressive.pixelcnn import GatedPixelCNN, MaskedPixelCNN
from diffusion_jax.models.autoregressive.pixelsnail import PixelSNAIL
from diffusion_jax.models.judges.classifier import Classifier
from diffusion_jax.models.mlp import MLP
from diffusion_jax.models.transformers.dit import DiT
from diffusion_jax.models.transformers.prior import PriorTransformer
from diffusion_jax.models.unets.added_keys import AddedKeyUNet
from diffusion_jax.models.unets.adm import AdditiveUNet, ADMUNet, ImprovedUNet
from diffusion_jax.models.unets.beside import Beside
from diffusion_jax.models.unets.controlnet import Controlled, ControlNet
from diffusion_jax.models.unets.ddpmpp import DDPMpp
from diffusion_jax.models.unets.efficient import EfficientUNet
from diffusion_jax.models.unets.ncsnpp import NCSNpp, ResidualNCSNpp
from diffusion_jax.models.unets.super_resolution import SuperResolution
from diffusion_jax.models.unets.text_unet import TextUNet
from diffusion_jax.models.unets.unet import UNet

__all__ = [
    "MLP",
    "ADMUNet",
    "AddedKeyUNet",
    "AdditiveUNet",
    "Beside",
    "Classifier",
    "ControlNet",
    "Controlled",
    "DDPMpp",
    "DiT",
    "EfficientUNet",
    "GatedPixelCNN",
    "ImprovedUNet",
    "MaskedPixelCNN",
    "NCSNpp",
    "PixelSNAIL",
    "PriorTransformer",
    "ResidualNCSNpp",
    "SuperResolution",
    "TextUNet",
    "UNet",
]
