"""unCLIP's decoder at its paper's size: 64x64 pixels of CLIP's embeddings, from captioned pictures of your own.

  python -m diffusion_jax.train --config configs/unclip_decoder_folder.py --workdir runs/unclip_decoder_folder \\
    --config.data.dir=PATH --config.clip.folder=openai/clip-vit-large-patch14
  python -m diffusion_jax.sample --workdir runs/unclip_decoder_folder --prompt "a photo of a cat"

PATH is a folder of pictures of at least 256x256 with a text beside each, cat.jpg and cat.txt. The run holds the CLIP;
it needs the extra `text`. 2.2 billion parameters, batch 2048, 800k updates, a learned variance on a cosine table. By
default samples are variations of the first pictures of PATH. Not trained with this code: it was run with small
networks and pictures.
"""

from diffusion_jax.methods.text_to_image import unclip


def get_config():
    return unclip.config_decoder()


def build(config):
    return unclip.decoder(config)
