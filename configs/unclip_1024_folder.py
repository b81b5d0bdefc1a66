"""unCLIP's second super-resolution at its paper's size, 256x256 to 1024x1024, from pictures of your own.

  python -m diffusion_jax.train --config configs/unclip_1024_folder.py --workdir runs/unclip_1024_folder \\
    --config.data.dir=PATH
  python -m diffusion_jax.sample --workdir runs/unclip_1024_folder --sampler ddim --steps 15 \\
    --condition low_res=middle/samples.npz

As unclip_256_folder, with 282 million parameters, batch 512, a linear table, and parts of 256x256; middle/samples.npz
is what unclip_256_folder drew. In training small pictures are blurred, shrunk in several ways, noisy and compressed,
in an order that is drawn (BSR, the light form). Those of samples are not spoiled, be they drawn or of PATH.
"""

from diffusion_jax.methods.text_to_image import unclip


def get_config():
    return unclip.config_1024()


def build(config):
    return unclip.upper_1024(config)
