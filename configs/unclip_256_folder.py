"""unCLIP's first super-resolution at its paper's size, 64x64 to 256x256, from pictures of your own.

  python -m diffusion_jax.train --config configs/unclip_256_folder.py --workdir runs/unclip_256_folder \\
    --config.data.dir=PATH
  python -m diffusion_jax.sample --workdir runs/unclip_256_folder --sampler ddim --steps 27 \\
    --condition low_res=small/samples.npz

PATH is a folder of pictures; no texts are told. ADM's network without attention has 730 million parameters: batch
1024, a million updates on parts of 64x64, half of whose small pictures are blurred. It draws whole pictures.
small/samples.npz is what a prior's run drew, [N, 64, 64, 3], uint8 or in [-1, 1]; without it the first pictures of
PATH are made small and enlarged again. Not trained with this code: it was run with small networks and pictures.
"""

from diffusion_jax.methods.text_to_image import unclip


def get_config():
    return unclip.config_256()


def build(config):
    return unclip.upper_256(config)
