"""unCLIP's prior at its paper's size, and its decoder after it: pictures of texts.

  python -m diffusion_jax.train --config configs/unclip_prior_folder.py --workdir runs/unclip_prior_folder \\
    --config.data.dir=PATH --config.clip.folder=openai/clip-vit-large-patch14 \\
    --config.decoder.run=runs/unclip_decoder_folder
  python -m diffusion_jax.sample --workdir runs/unclip_prior_folder --prompt "a photo of a cat"

PATH and the CLIP as of unclip_decoder_folder, which is trained first; the run holds both. 1.2 billion parameters,
batch 4096, 600k updates, weight decay 0.06. Of two draws of the prior the nearer to the text stays. Pictures are of
64x64 pixels; unclip_256_folder and unclip_1024_folder enlarge them. The paper reports an FID on COCO of 10.39 for all
four. Not trained with this code: it was run with small networks and pictures.
"""

from diffusion_jax.methods.text_to_image import unclip


def get_config():
    return unclip.config_prior()


def build(config):
    return unclip.prior(config)
