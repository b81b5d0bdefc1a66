"""unCLIP's decoder: MNIST of 8x8 pixels from the embedding of a picture by a CLIP.

  python -m diffusion_jax.train --config configs/unclip_decoder.py --workdir runs/unclip_decoder \\
    --config.clip.run=runs/clip
  python -m diffusion_jax.sample --workdir runs/unclip_decoder --num 30

It holds the CLIP of configs/clip.py. The picture's embedding is withheld of 10 % of the examples, the text's of 50 %.
By default samples are variations of test digits; a file with "image" [N, 32, 32, 1] gives others. 2500 steps of a
perceptron, four minutes of CPU time, on 4000 of the digits. What to expect is in docs/measured/gallery.md.
"""

from diffusion_jax.methods import unclip


def get_config():
    return unclip.config_decoder()


def build(config):
    return unclip.decoder(config)
