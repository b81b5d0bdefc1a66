"""The variational bound of a Gaussian chain, all of its terms in one scan (DDPM, equations 5 and 13).

    bits/dim of x0 <= prior + sum of terms + decoder

A chain is walked down its grid once. At each t, x_t ~ q(x_t | x0) is drawn anew: an unbiased estimate of every term
for every example, the posterior known in closed form. Memory does not grow with the number of steps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian, mean_over_entries
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import (
    Apply,
    Cost,
    Decoder,
    Denoiser,
    DenoiserOf,
    Guide,
    LikelihoodFn,
    Transform,
    Tree,
)
from diffusion_jax.diffusion.gaussian import refreshed
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.likelihood.terms import bits, decoder_term, prior_term
from diffusion_jax.diffusion.parameterizations import Parameterization, denoiser
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.processes.gaussian import gaussian
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.timesteps import check_grid


class Bound(NamedTuple):
    """A bound of -log2 p(x0) in bits an entry, its parts apart; for a grid of N steps, noise first.

    Attributes:
      prior: [B], L_T: what x_1 still says of x0.
      terms: [B, N - 1], entry n the step from times[n] to times[n + 1]: L_{T-1}, ..., L_1.
      decoder: [B], L_0, the step to the data.
      mse_x0: [B, N], mean squared error of the estimate of x0 at times[n]; None for tokens.
      mse_eps: [B, N], that of the noise it implies; None for tokens.
    """

    prior: jax.Array
    terms: jax.Array
    decoder: jax.Array
    mse_x0: jax.Array | None = None
    mse_eps: jax.Array | None = None

    @property
    def rate(self):
        """[B], L_1 + ... + L_T: the bits an entry that carry x_{times[N - 1]} (DDPM section 4.3)."""
        return self.prior + self.terms.sum(-1)

    @property
    def distortion(self):
        """[B], L_0: the bits an entry that are left to x0."""
        return self.decoder

    @property
    def total(self):
        """[B], the bound."""
        return self.rate + self.distortion

    @property
    def received(self):
        """[B, N], the bits an entry that carry x_{times[n]}: the rate at the distortion mse_x0[:, n] (figure 5)."""
        return jnp.cumsum(jnp.concatenate([self.prior[..., None], self.terms], axis=-1), axis=-1)

    @property
    def rmse(self):
        """[B], the root mean squared error of the last estimate on the scale 0, ..., 255 (DDPM section 4.3)."""
        return 127.5 * jnp.sqrt(self.mse_x0[..., -1])


# ---- Decoders, `(kernel, x0) -> nats of each entry`; besides `decoder_term` and `density_term`:


def at_variance(var: float, decoder: Decoder = decoder_term) -> Decoder:
    """`decoder` of a kernel whose variance is `var`, whatever it was."""
    return lambda kernel, x0: decoder(kernel._replace(var=jnp.full_like(kernel.mean, var)), x0)


def second_variance(schedule: Schedule, times: ArrayLike) -> float:
    """The posterior variance of a grid's second step from the data.

    DDPM's code decodes with it under both fixed variances, `decoder=at_variance(second_variance(schedule, times))`:
    the posterior variance of the first step is 0.

    Raises:
      InputError: a grid of one step has no second.
    """
    times = check_grid(times)
    if len(times) < 3:
        raise InputError("the bound of a chain takes at least 2 steps, not 1")
    t, s = times[-3], times[-2]
    return float(refreshed(schedule, t, s) * schedule.sigma(s) ** 2)


# ---- The bound.


def chain_bound(
    denoise: Denoiser,
    schedule: Schedule,
    process: Process,
    times: ArrayLike,
    x0: jax.Array,
    keys: jax.Array,
    decoder: Decoder = decoder_term,
) -> Bound:
    """The bound of a chain for each example.

    q is DDPM's forward process; p(x_s | x_t) is any normal kernel with a variance above 0: DDPM's two, a learned
    one, an optimal one (`variances`), DDIM's with eta > 0. Only in the last step may its variance be 0; there the
    decoder is given that of the step before (`second_variance`), as in DDPM's code. Any grid is a chain of its own:
    fewer steps, a looser bound.

    Args:
      denoise: `(x_t [B, ...], t) -> Estimate`, with clipping and variances as in sampling.
      schedule: the process's.
      process: `processes.gaussian(schedule)`, or another with its marginals and normal kernels.
      times: a grid that falls to 0, [N + 1], N >= 2.
      x0: float [B, ...]; images of 256 levels in [-1, 1] (`check_levels`) unless the decoder is for others.
      keys: one key an example, [B]; step n uses `fold_in(key, n + 1)`.
      decoder: `(kernel, x0) -> nats of each entry`; for K levels `partial(decoder_term, half_bin=1 / (K - 1))`.

    Raises:
      InputError: a grid that does not fall to 0 or has one step, x0 that is not floating point, or not a key each.
    """
    times, keys = check_chain(times), check_keys(keys, x0)
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise InputError(f"x0 must be floats in [-1, 1], not {x0.dtype}: convert images with images.to_float")
    floor = second_variance(schedule, times)
    t, s = times[:-1], times[1:]
    plan = gaussian(schedule).bridge(t, s), process.bridge(t, s)

    def cost(plan, estimate, x_t, last):
        truth, bridge = plan
        kernel = bridge(estimate, x_t)

        def to_data():
            return decoder(kernel._replace(var=jnp.where(kernel.var > 0, kernel.var, floor)), x0)

        nats = jax.lax.cond(last, to_data, lambda: truth(Gaussian(x0), x_t).kl(kernel))
        return mean_over_entries(bits(nats)), mean_over_entries((estimate.mean - x0) ** 2)

    nats, error = walk(denoise, process, times, x0, keys, plan, cost)
    with np.errstate(divide="ignore"):
        snr = (schedule.alpha(t) / schedule.sigma(t)) ** 2
    prior = mean_over_entries(bits(prior_term(schedule, x0, times[0])))
    return Bound(prior, nats[:, :-1], nats[:, -1], error, error * jnp.asarray(snr, error.dtype))


def walk(
    denoise: Denoiser, process: Process, times: np.ndarray, x0: Tree, keys: jax.Array, plan: Tree, cost: Cost
) -> Tree:
    """`cost(plan, estimate, x_t, last)`, a pytree of [B], at every time of a grid but 0: a pytree of [B, N].

    Args:
      denoise, process, times, x0, keys: as of `chain_bound`; x_t = process.corrupt of x0, drawn anew at every t.
      plan: pytree whose arrays lead with the axis of steps; `cost` is given its slice.
      cost: what is wanted at one time; `last` says whether the step arrives at 0.
    """

    def body(_, step):
        number, t, last, inner = step
        x_t, _ = jax.vmap(process.corrupt, (0, 0, None))(rng.each(keys, number), x0, t)
        return None, cost(inner, denoise(x_t, t), x_t, last)

    steps = np.arange(1, len(times)), times[:-1], times[1:] == 0, plan
    _, costs = jax.lax.scan(body, None, steps)
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), costs)


def make_bound_fn(
    apply: Apply,
    parameterization: Parameterization,
    process: Process,
    schedule: Schedule,
    times: ArrayLike,
    transforms: Sequence[Transform] = (),
    guide: Guide = conditioned,
    decoder: Decoder = decoder_term,
) -> LikelihoodFn:
    """`bound_fn(params, keys [B], x0 [B, ...], *cond) -> Bound`, one pure function; arguments as of `chain_bound`.

    Args:
      apply: `(params, input [B, ...], time [B], *cond) -> output`, the network.
      parameterization: what the network's input and output mean.
      transforms: `Denoiser -> Denoiser`, from first to last; DDPM's figures have `guidance.clip()` among them.
      guide: `(conditional denoiser, *cond) -> Denoiser`, as of `make_sample_fn`.
    """
    times = check_chain(times)
    made = make_denoiser(apply, parameterization, transforms, guide)

    def bound_fn(params, keys, x0, *cond):
        return chain_bound(made(params, *cond), schedule, process, times, x0, keys, decoder)

    return bound_fn


def make_denoiser(
    apply: Apply, parameterization: Parameterization, transforms: Sequence[Transform], guide: Guide
) -> DenoiserOf:
    """`(params, *cond) -> Denoiser`, as `make_sample_fn` makes it."""

    def made(params, *cond):
        denoise = guide(denoiser(lambda *inputs: apply(params, *inputs), parameterization), *cond)
        for transform in transforms:
            denoise = transform(denoise)
        return denoise

    return made


def check_chain(times: ArrayLike) -> np.ndarray:
    """`times` as a float64 vector, or `InputError` unless it falls to 0."""
    times = check_grid(times)
    if times[-1] != 0:
        raise InputError(f"the bound of a chain needs a grid that ends at 0, not at {times[-1]:g}")
    return times


def check_keys(keys: jax.Array, x0: Any) -> jax.Array:
    """`keys` as typed keys, or `InputError` unless there is one an example."""
    keys = rng.typed(keys)
    if keys.shape != (len(x0),):
        raise InputError(f"a likelihood takes one key an example, [{len(x0)}], not {list(keys.shape)}")
    return keys
