"""TD-VAE on handwritten digits, 8x8, that move by a pixel a frame, left or right.

  python -m diffusion_jax.train --config configs/tdvae.py --workdir runs/tdvae
  python -m diffusion_jax.sample --workdir runs/tdvae --num 16 --film
  python -m diffusion_jax.evaluate --workdir runs/tdvae --num 0 --codes --likelihood jump1

8000 steps of 64 sequences of 20 frames, black and white; some 0.05 seconds of CPU time a step. Rollouts are told 6
frames of a test sequence and show the means of the 14 that follow.

Expect "jump 1" at 17.8 nats a frame on the first 2000 test sequences (18.2 with seed 1), where each pixel by itself
costs 40.2. The digits of rollouts move on by a pixel a frame, and slowly become other digits.
"""

from diffusion_jax.data import sequences, sources
from diffusion_jax.methods.autoencoders import td_vae


def get_config():
    return td_vae.config_digits()


def build(config):
    def source(split):
        return sequences.moving(sources.digits(split), config.data.length, copies=16)

    return td_vae.build_frames(config, td_vae.frames(config, source, (8, 8, 1)))
