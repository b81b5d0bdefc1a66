"""unCLIP's prior, and all after it: pictures of MNIST from captions, "a thick seven".

  python -m diffusion_jax.train --config configs/unclip_prior.py --workdir runs/unclip_prior \\
    --config.clip.run=runs/clip --config.decoder.run=runs/unclip_decoder \\
    --config.upper.run=runs/super_resolution
  python -m diffusion_jax.sample --workdir runs/unclip_prior --num 30
  python -m experiments.captioned_quality --workdir runs/unclip_prior

It holds the runs of configs/clip.py, configs/unclip_decoder.py and configs/super_resolution.py, which are trained
first. A sample is drawn by stages: the text is encoded; of two draws of the prior the nearer to the text stays; the
decoder makes 8x8 pixels of it, and super-resolution 32x32. By default the 30 captions come in turn. 5000 steps, ten
minutes of one core, on 4000 of the digits. What to expect is in docs/measured/gallery.md.
"""

from diffusion_jax.methods import unclip


def get_config():
    return unclip.config_prior()


def build(config):
    return unclip.prior(config)
