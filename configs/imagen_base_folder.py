"""Imagen's base at its paper's size: 64x64 pixels of a text, from captioned pictures of your own.

  python -m diffusion_jax.train --config configs/imagen_base_folder.py --workdir runs/imagen_base_folder \\
    --config.data.dir=PATH --config.text.folder=google/t5-v1_1-xxl
  python -m diffusion_jax.sample --workdir runs/imagen_base_folder --prompt "a photo of a cat" --guidance 7

PATH is a folder of pictures with a text beside each, cat.jpg and cat.txt. The run holds the T5, 9.5 GB of it in
bfloat16, and needs the extra `text`. Smaller ones do as well: google/t5-v1_1-base. Beside it a network of 2.4
billion parameters is trained, batch 2048, 2.5 million steps. The paper reports an FID on COCO of 7.27 for the whole
system, at a guidance of 1.35. Not trained with this code: it was run with small networks and pictures.
"""

from diffusion_jax.methods.text_to_image import imagen


def get_config():
    return imagen.config_base()


def build(config):
    return imagen.base(config)
