"""What trains an autoencoder: distortion, rate and penalties, all sums over the entries of an example, in nats.

One loss makes the family. A variational autoencoder weighs its rate by 1, beta-VAE by beta; a sparse one has a
penalty, a denoising one spoils what its encoder sees. Sums, not means: with D entries and k codes a mean of
both is beta = D / (2 sigma^2 k) in disguise.
"""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from diffusion_jax.autoencoding.distortions import of_law
from diffusion_jax.autoencoding.statistics import observe
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Coder, Decode, Distort, Loss, OfParams, Penalty, Spoil, Weigh


def beta(weight: float) -> Weigh:
    """`weight` times the rate: 1 is the evidence lower bound, more is beta-VAE (Higgins et al. 2017, equation 4)."""
    if not weight >= 0:
        raise InputError(f"a rate weighed by {weight}; give a number >= 0")
    return lambda rate, params, context: weight * rate


ELBO = beta(1.0)


def capacity(most: float, steps: int, gamma: float, moving: OfParams) -> Weigh:
    """gamma |R - C|, R the mean rate of the batch: a rate of C nats (Burgess et al. 2018, equation 8).

    C rises linearly from 0 to `most` nats in `steps` updates. The sign of R - C is that of a moving average of the
    rate, `moving(params)`, a scalar statistic (`statistics`): a share of the batch has a sign of its own.

    Raises:
      InputError: `most` or `gamma` is negative, or there are no steps.
    """
    if not (most >= 0 and gamma >= 0 and steps >= 1):
        raise InputError(f"a capacity of {most} nats in {steps} steps, weighed by {gamma}; give >= 0, >= 1 and >= 0")

    def weigh(rate, params, context):
        statistic = moving(params)
        now = most * jnp.clip(jnp.asarray(context.step, jnp.float32) / steps, 0.0, 1.0)
        sign = jax.lax.stop_gradient(jnp.sign(statistic - now))
        return gamma * sign * (rate - now) + observe(statistic, rate)

    return weigh


def loss(
    code: Coder,
    decode: Decode,
    weigh: Weigh = ELBO,
    penalties: Mapping[str, Penalty] = MappingProxyType({}),
    spoil: Spoil | None = None,
) -> Loss:
    """-log p(x | z) + weigh(rate) + the bottleneck's cost + penalties, of each example.

    `decode` is `(params, z) -> p(x | z)`; the rest as of `costing`, which gives the loss of other distortions.
    """
    return costing(code, of_law(decode), weigh, penalties, spoil)


def costing(
    code: Coder,
    distort: Distort,
    weigh: Weigh = ELBO,
    penalties: Mapping[str, Penalty] = MappingProxyType({}),
    spoil: Spoil | None = None,
) -> Loss:
    """distortion + weigh(rate) + the bottleneck's cost + penalties, of each example.

    Args:
      code: `(params, keys, x) -> Code` (`codes.coder`).
      distort: `(params, x, z, context) -> (cost [B], info)` (`distortions`).
      weigh: what the rate costs.
      penalties: name, under which it is logged -> `(params, keys, x, code, context) -> [B]`.
      spoil: `(key, x) -> x`, of one example: what is shown to the encoder, while all of x is asked of the decoder
        (denoising autoencoders). None shows it as it is.

    Returns:
      `(keys [B], params, x [B, ...], context) -> (loss [B], info)`. Logged are the "rate", nats, and what the
      distortion, the code and the penalties have.
    """

    def of_batch(keys, params, x, context):
        spoil_keys, code_keys, penalty_keys = rng.split(keys, 3)
        seen = x if spoil is None else jax.vmap(spoil)(spoil_keys, x)
        coded = code(params, code_keys, seen)
        distortion, logged = distort(params, x, coded.z, context)
        info = {**logged, "rate": coded.rate, **coded.info}
        value = distortion + weigh(coded.rate, params, context) + coded.cost
        for number, (name, penalty) in enumerate(penalties.items()):
            info[name] = penalty(params, rng.each(penalty_keys, number), seen, coded, context)
            value = value + info[name]
        return value, info

    return of_batch
