"""TD-VAE on series whose density is known: a point that turns about the middle, of which one coordinate is seen.

  python -m diffusion_jax.train --config configs/tdvae_series.py --workdir runs/tdvae_series
  python -m diffusion_jax.evaluate --workdir runs/tdvae_series --num 0 --codes --likelihood jump1

A minute or two on two CPU cores, 4000 steps of 128 series. Expect "jump 1" at 0.805 nats a frame on the test series
(0.799 with seed 1), where Kalman's filter, which knows the model, has 0.760 (`data.sequences.innovations`). An entry
cannot tell which way the point turns, so a belief without memory stays 0.29 above Kalman's after 1500 steps, where
one with memory is at 0.06 (`tests/methods/test_td_vae_trained.py`).
"""

from diffusion_jax.data import sequences
from diffusion_jax.methods.autoencoders import td_vae


def get_config():
    return td_vae.config_series()


def build(config):
    source = sequences.splits(sequences.turning(), config.data.length)
    return td_vae.build_series(config, td_vae.series(config, source, numbers=1))
