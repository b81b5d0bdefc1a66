"""Cascades of diffusion models (Ho et al. 2022, "Cascaded Diffusion Models"): a model of small images, and one of
larger images that is told a small one.

The second model is trained on shrunk data, and is shown what the first one draws. *Conditioning augmentation* spoils
both alike, so that the second does not trust what the first gets wrong: `augment(keys [B], low [B, h, w, C],
level [B]) -> low`. With noise z = alpha(s) l + sigma(s) e at the level s, the error of a first stage that draws the
wrong l is damped more the larger s is, and a right first stage gives the right law at every s.
`losses.augmented` trains with it.

Where the level is told, z may be made in two ways of the same law: the first chain is stopped at s (`until`), or it
ends and noise is put on its sample (`noised`), which lets s be changed without drawing the small image anew.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Augment, Retell
from diffusion_jax.diffusion.gaussian import q_sample
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.timesteps import check_grid

LOW = "low_res"  # the condition


def noised(schedule: Schedule) -> Augment:
    """Gaussian noise: z ~ q(x_level | low), for low resolutions (section 4.1). Levels are times in [0, 1]."""
    return lambda keys, low, level: q_sample(schedule, low, level, rng.normal_like(keys, low))


def blurred(low: float = 0.4, high: float = 0.6, share: float = 0.5) -> Augment:
    """Gaussian blur, for 128x128 and more (section 4.3): of training examples only; samples are told sharp images.

    The level is not used.

    Args:
      low, high: the deviation is drawn uniformly between them, in pixels.
      share: of the examples that are blurred, in [0, 1].

    Raises:
      InputError: not 0 <= low <= high, or a share outside [0, 1].
    """
    if not (0 <= low <= high and 0 <= share <= 1):
        raise InputError(f"blur needs 0 <= low <= high and a share in [0, 1], not {low}, {high} and {share}")

    def augment(keys, images, level):
        coins, deviations = rng.split(keys, 2)
        sigma = jax.vmap(lambda key: jax.random.uniform(key, minval=low, maxval=high))(deviations)
        chosen = jax.vmap(lambda key: jax.random.bernoulli(key, share))(coins)
        return jnp.where(expand(chosen, images), blur(images, sigma), images)

    return augment


def blur(x: jax.Array, sigma: jax.Array, size: int = 3) -> jax.Array:
    """Images [B, h, w, C] blurred by a Gaussian of deviation sigma [B] in pixels, cut off at `size` x `size`, odd.

    Its weights add up to 1; beyond the border the image repeats its outermost pixels. sigma = 0 changes nothing.
    """
    if size % 2 == 0:
        raise InputError(f"a blur of {size} pixels has no middle; give an odd size")
    reach = size // 2
    square = jnp.arange(-reach, reach + 1) ** 2
    weight = jnp.exp(-square / jnp.maximum(2 * sigma[:, None] ** 2, jnp.finfo(x.dtype).tiny))
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(x.dtype)
    for axis in (1, 2):
        length = x.shape[axis]
        padded = jnp.pad(x, [(reach, reach) if each == axis else (0, 0) for each in range(x.ndim)], "edge")
        x = sum(expand(weight[:, i], x) * jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(size))
    return x


def telling(augment: Augment) -> Retell:
    """`(keys, cond, level) -> cond` with the "low_res" that `augment` makes, and the level as "noise_level"."""
    return lambda keys, cond, level: {**cond, LOW: augment(keys, cond[LOW], level), LEVEL: level}


def silently(augment: Augment) -> Retell:
    """`(keys, cond, level) -> cond` with the "low_res" that `augment` makes; the level is not told."""
    return lambda keys, cond, level: {**cond, LOW: augment(keys, cond[LOW], level)}


def until(times: ArrayLike, level: float) -> np.ndarray:
    """The grid `times`, [N + 1], cut off at `level`: a chain down it ends with x_level, the noise still in it.

    (The truncated cascade of section 4.2.) The second model is told that level, and its "low_res" is that x_level.

    Raises:
      InputError: the level is not in [times[-1], times[0]).
    """
    times = check_grid(times)
    if not times[-1] <= level < times[0]:
        raise InputError(f"a chain from {times[0]:g} to {times[-1]:g} cannot be stopped at {level:g}")
    return np.append(times[times > level], level)
