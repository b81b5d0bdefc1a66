"""Shortcut models (Frans et al. 2025): steps of twice the length, learned from two steps of the moving average.

The network is told where it is and how long a step it is asked for, d in {1, 1/2, ..., 1/N}, and says the step's
velocity u(x_t, t, d). A share of the batch *bootstraps*: two steps of d are one of 2 d,

    u(x_t, t, 2 d) = (u(x_t, t, d) + u(x_{t - d}, t - d, d)) / 2        (equation 4),

the right side of the averaged network's, and constant. The rest is flow matching, as steps of the smallest length.
The paper's time is the reverse of ours: it has 1 where the data is.

Parameterisations here are `parameterizations.flow_map` of a velocity, and schedules `schedules.flow`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import mean_over_entries
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Denoiser, Guide, Loss, OfTime
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.parameterizations import Parameterization, denoiser
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.spans import Span
from diffusion_jax.diffusion.time_sampling import Times


def halvings(num: int) -> int:
    """log2 of the number of smallest steps; `InputError` unless `num` is a power of two from 2."""
    if num < 2 or num & (num - 1):
        raise InputError(f"shortcuts of {num} smallest steps: take a power of two, 128 for instance")
    return num.bit_length() - 1


def check_steps(steps: int, num: int):
    """Raise `InputError` unless a chain of `steps` equal steps is one of lengths that were learned."""
    if steps & (steps - 1) or not 1 <= steps <= num:
        raise InputError(f"{steps} steps of a shortcut model: it has learned 1, 2, 4, ..., {num}; take one of them")


def level(num: int) -> OfTime:
    """The `interval` of `parameterizations.flow_map`: log2(1 / d), of at most log2(num), which is told for d = 0."""
    most = halvings(num)
    return lambda length: jnp.minimum(-jnp.log2(jnp.maximum(length, 1 / num)), float(most))


def spans(num: int, bootstrapped: float = 0.125) -> Times:
    """Steps of grids of 1, 2, ..., num / 2 and num steps from t = 1 to 0.

    The share `bootstrapped`, in whole examples at the end of the global batch, has steps of the coarser grids, each
    grid as often; the rest has steps of the finest, for flow matching.

    Args:
      num: of smallest steps, a power of two.
      bootstrapped: in [0, 1]; the paper's is an eighth, of 128 smallest steps (section 3.1). `InputError` otherwise.
    """
    count = halvings(num)
    if not 0 <= bootstrapped <= 1:
        raise InputError(f"a share of {bootstrapped} that bootstraps: give one in [0, 1]")

    def draw(key, index, total):
        grid_keys, place_keys = rng.split(rng.per_example(key, index), 2)
        coarser = jax.vmap(lambda key: jax.random.randint(key, (), 0, count))(grid_keys)
        steps = 2 ** jnp.where(index < round((1 - bootstrapped) * total), count, coarser)
        place = jnp.floor(jax.vmap(jax.random.uniform)(place_keys) * steps)  # exact: steps is a power of two
        return Span((place + 1) / steps, place / steps)

    return time_sampling.forgetful(draw)


def guided_at_first(scale: float, num: int) -> Callable[[Span], jax.Array]:
    """A scale of guidance (`guidance.classifier_free`) for the smallest steps alone, as the paper has it: longer ones
    learn from guided ones, and are guided already."""
    return lambda span: jnp.where(span.length < 1.5 / num, scale, 1.0)


def shortcut(
    apply: Apply, parameterization: Parameterization, process: Process, num: int, guide: Guide = conditioned
) -> Loss:
    """The mean squared error of the velocity of steps; `context.t` is a `Span` [B] of `spans(num)`.

    The steps that are learned from are those of `context.averages["ema"]`. `info` has the error of "flow" and
    "bootstrap" examples, each as its share of the whole. The average is asked for all examples, whether they
    bootstrap or not: which do is known when the program runs, and may differ from device to device.

    Args:
      apply, parameterization, process: as of `losses.of_criterion`, see above.
      num: of smallest steps.
      guide: what is made of the condition in the steps that are learned from: `guidance.classifier_free` with the
        scale `guided_at_first`.
    """
    halvings(num)

    def loss(keys, params, x0, context, *cond):
        span = context.t
        noise_keys, dropout_keys = rng.split(keys, 2)
        x_t, noise = jax.vmap(process.corrupt)(noise_keys, x0, span.t)
        averaged = denoiser(lambda *inputs: apply(context.averages["ema"], *inputs), parameterization)
        halves = two_steps(guide(averaged, *cond), x_t, span)
        bootstrapped = span.length > 1.5 / num
        straight = parameterization.target(x0, noise, span)
        target = jax.lax.stop_gradient(jnp.where(expand(bootstrapped, x_t), halves, straight))
        output = apply(params, *parameterization.scale(x_t, span), *cond, dropout_keys=dropout_keys)
        error = mean_over_entries((output - target) ** 2)
        parts = {"flow": jnp.where(bootstrapped, 0, error), "bootstrap": jnp.where(bootstrapped, error, 0)}
        return error, parts

    return loss


def two_steps(denoise: Denoiser, x_t: jax.Array, span: Span) -> jax.Array:
    """The mean velocity of two steps, each of half the span."""
    middle = (span.t + span.s) / 2
    first = _velocity(denoise, x_t, Span(span.t, middle))
    x_middle = x_t - expand(span.t - middle, x_t) * first
    return (first + _velocity(denoise, x_middle, Span(middle, span.s))) / 2


def _velocity(denoise: Denoiser, x_t: jax.Array, span: Span) -> jax.Array:
    return (x_t - denoise(x_t, span).mean) / expand(span.t, x_t)
