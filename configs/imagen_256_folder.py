"""Imagen's super-resolution at its paper's size, 64x64 to 256x256, from captioned pictures of your own.

  python -m diffusion_jax.train --config configs/imagen_256_folder.py --workdir runs/imagen_256_folder \\
    --config.data.dir=PATH --config.text.folder=google/t5-v1_1-xxl
  python -m diffusion_jax.sample --workdir runs/imagen_256_folder --prompt "a photo of a cat" \\
    --condition low_res=small/samples.npz --condition noise_level=0,0.1,0.3

PATH and the T5 as of imagen_base_folder. The Efficient U-Net has 517 million parameters; batch 2048, 2.5 million
steps, on noise of a level that is told. small/samples.npz is what the base drew of the text,
[N, 64, 64, 3], uint8 or in [-1, 1]; without it the first pictures of PATH are made small and enlarged again. Not
trained with this code: it was run with small networks and pictures.
"""

from diffusion_jax.methods.text_to_image import imagen


def get_config():
    return imagen.config_256()


def build(config):
    return imagen.upper_256(config)
