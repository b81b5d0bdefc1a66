"""Easy consistency tuning (ECT, Geng et al. 2024): an EDM network, tuned on pairs that grow together; no grid.

The function is EDM's, which is the identity at level 0: `parameterizations.identity_at_zero(edm(schedule))` on
`schedules.edm`. It starts as denoising, for most pairs end at 0, and becomes consistency training. The loss is
`consistency.loss(same_noise, distances.pseudo_huber(0.0), weight=consistency.inverse_width(schedule))`.
"""

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion import time_sampling
from diffusion_jax.diffusion.few_step import pairs
from diffusion_jax.diffusion.few_step.pairs import Pair
from diffusion_jax.diffusion.time_sampling import Times


def share(level: jax.Array, stage: jax.Array, q: float = 2.0) -> jax.Array:
    """1 - r / t, of the levels of a pair: min(1, q^-(stage + 1) (1 + 8 / (1 + e^t))); from stage 0 on."""
    return jnp.minimum(1.0, q ** -(stage + 1.0) * (1 + 8 / (1 + jnp.exp(level))))


def times(
    sigma_max: float = 80.0,
    each: int = 25_000,
    stages: int = 8,
    q: float = 2.0,
    mean: float = -1.1,
    std: float = 2.0,
) -> Times:
    """Pairs of times of `schedules.edm(sigma_max)`: log(level) ~ N(mean, std^2), whose other end is `share` below.

    As in the official code levels are not cut off at sigma_max: 3 in 1000 lie above, where t > 1.

    Args:
      sigma_max: the unit of time.
      each: updates of a stage.
      stages: how many there are; the last goes on.
      q: by how much pairs grow closer from stage to stage.
      mean, std: of log(level).
    """

    def law(updates, u):
        level = jnp.exp(mean + std * time_sampling.normal(u))
        part = share(level, jnp.minimum(updates // each, stages - 1), q)
        return Pair(level / sigma_max, level * (1 - part) / sigma_max, part)

    return pairs.by_update(law)
