"""What a denoising autoencoder's encoder is shown: `(key, x [...]) -> [...]`, of one example.

(Vincent et al. 2010, section 3.3.) The loss compares with the clean x (`objectives.loss`).
"""

import jax
import jax.numpy as jnp

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Corrupt, Spoil


def at(corrupt: Corrupt, t: float) -> Spoil:
    """x_t of a diffusion process at one time t: x + sigma n is that of a variance-exploding schedule.

    Args:
      corrupt: of the process, `(key, x0, t) -> (x_t, noise)`.
      t: in [0, 1].
    """
    return lambda key, x: corrupt(key, x, t)[0]


def masked(rate: float) -> Spoil:
    """Each entry is 0 with probability `rate`, by itself, and else as it was.

    Unlike dropout, which divides what it keeps by 1 - rate. The 0 is a value: what is best depends on where 0 lies
    in the data, so images in [0, 1], centred and inverted ones have different optima.

    Raises:
      InputError: `rate` is not within [0, 1).
    """
    if not 0 <= rate < 1:
        raise InputError(f"a share of {rate} of the entries is masked; give one from 0 to less than 1")

    def spoil(key, x):
        return jnp.where(rng.flat(jax.random.uniform, key, x.shape) < rate, 0, x)

    return spoil
