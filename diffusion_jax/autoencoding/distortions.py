"""What a decoder's errors cost: `(params, x [B, ...], numbers [B, ...], context) -> (cost [B], info)`.

`numbers` are what the decoder says. Costs are sums over the entries of an example, in nats (`objectives`), but for
`averaged`.
"""

import math

from diffusion_jax.autoencoding.codes import total
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Compare, Decode, DecodeLatents, Distance, Distort, ReadData


def unlikely(read: ReadData) -> Compare:
    """-log p(x | z), of the law that the numbers say (`laws`)."""

    def compare(params, x, numbers, context):
        distortion = -total(read(params, numbers).log_prob(x))
        return distortion, {"distortion": distortion}

    return compare


def perceived(compare: Compare, distance: Distance, weight: float = 1.0, name: str = "lpips") -> Compare:
    """`compare`, and `weight` times a distance for each entry of x (Rombach et al. 2022, appendix G).

    Args:
      compare: what else it costs.
      distance: `(x [B, ...], numbers [B, ...], context) -> [B]`, for numbers that are images as x are.
      weight: >= 0.
      name: of the distance in the log.

    Raises:
      InputError: the weight is negative.
    """
    if not weight >= 0:
        raise InputError(f"a distance weighed by {weight}; give a number >= 0")

    def both(params, x, numbers, context):
        cost, info = compare(params, x, numbers, context)
        apart = distance(x, numbers, context)
        return cost + weight * math.prod(x.shape[1:]) * apart, {**info, name: apart}

    return both


def averaged(compare: Compare) -> Compare:
    """The mean over entries in place of the sum."""

    def mean(params, x, numbers, context):
        cost, info = compare(params, x, numbers, context)
        return cost / math.prod(x.shape[1:]), info

    return mean


# ---- Of codes, `(params, x [B, ...], z [B, ...], context) -> (cost [B], info)`.


def of_law(decode: Decode) -> Distort:
    """-log p(x | z)."""

    def distort(params, x, z, context):
        distortion = -total(decode(params, z).log_prob(x))
        return distortion, {"distortion": distortion}

    return distort


def decoded(decode: DecodeLatents, compare: Compare) -> Distort:
    """What `compare` says of what is decoded."""
    return lambda params, x, z, context: compare(params, x, decode(params, z), context)
