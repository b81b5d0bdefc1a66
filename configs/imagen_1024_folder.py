"""Imagen's last network at its paper's size, 256x256 to 1024x1024, from captioned pictures of your own.

  python -m diffusion_jax.train --config configs/imagen_1024_folder.py --workdir runs/imagen_1024_folder \\
    --config.data.dir=PATH --config.text.folder=google/t5-v1_1-xxl
  python -m diffusion_jax.sample --workdir runs/imagen_1024_folder --prompt "a photo of a cat" \\
    --condition low_res=middle/samples.npz

As imagen_256_folder, but that pixels attend to the text alone: so it is trained on parts of 256x256 of pictures, and
draws whole ones. middle/samples.npz is what imagen_256_folder drew of the text, [N, 256, 256, 3].
"""

from diffusion_jax.methods.text_to_image import imagen


def get_config():
    return imagen.config_1024()


def build(config):
    return imagen.upper_1024(config)
