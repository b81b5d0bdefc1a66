"""Likelihoods of whole methods: `(apply, parameterization, steps or None) -> likelihood_fn` (`compose`).

`flow_to_tolerance` is given a tolerance in place of the steps.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import (
    Apply,
    Denoiser,
    Grid,
    LikelihoodFn,
    LikelihoodOf,
    OfTime,
    SolvedOf,
    Transform,
)
from diffusion_jax.diffusion import likelihood, losses, losses_discrete, processes, timesteps, variances
from diffusion_jax.diffusion.likelihood.adaptive import ARRIVED, NOT_FINITE
from diffusion_jax.diffusion.likelihood.chain import make_denoiser
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.schedules import Schedule

Narrowest: TypeAlias = Callable[[Schedule, np.ndarray], float]  # `(schedule, grid) -> variance`


def chain(schedule: Schedule, num: int, transforms: Sequence[Transform]) -> LikelihoodOf:
    """The bound of the chain that a table of `num` betas is, or of a shorter one; with clipping and a fixed variance.

    It decodes with the variance of the second step, as in DDPM's code.
    """

    def make(apply, parameterization, steps):
        grid = timesteps.uniform(num if steps is None else steps, num)
        decoder = likelihood.at_variance(likelihood.second_variance(schedule, grid))
        process = processes.gaussian(schedule)
        return likelihood.make_bound_fn(apply, parameterization, process, schedule, grid, transforms, decoder=decoder)

    return make


def learned_chain(
    schedule: Schedule,
    num: int,
    transforms: Sequence[Transform],
    narrowest: Narrowest = likelihood.second_variance,
) -> LikelihoodOf:
    """The bound of a chain with a learned variance, which decodes too; shorter ones are spaced as Improved DDPM's.

    Args:
      schedule: of a table of betas.
      num: its length.
      transforms: of the denoiser, clipping for instance.
      narrowest: `(schedule, grid) -> variance` where the learned fraction is 0; by default that of the second step of
        the walked grid, as in the official code, whose shorter chains are tables of their own. `of_table` keeps that
        of the whole table, as trained.
    """

    def make(apply, parameterization, steps):
        grid = timesteps.respaced(num if steps is None else steps, num)
        return likelihood.make_bound_fn(
            apply,
            parameterization,
            processes.gaussian(schedule),
            schedule,
            grid,
            (*transforms, variances.no_less(narrowest(schedule, grid))),
            decoder=likelihood.decoder_term,
        )

    return make


def of_table(num: int) -> Narrowest:
    """The `narrowest` of `learned_chain` that a network was trained with on a table of `num` entries."""
    return lambda schedule, grid: likelihood.second_variance(schedule, timesteps.uniform(num, num))


class Solved(NamedTuple):
    """The density by the probability-flow ODE.

    Attributes:
      total: [B], bits an entry.
      error: [B], >= 0, an estimate of its solver's error, in bits an entry (`likelihood.Density`, `Solution`).
      noise: [B], of an estimated trace, where the error does not have it in it; in bits an entry.
      evaluations: int32 [B], of the network.
      ending: int32 [B], how the solver ended, an index into `likelihood.ENDINGS`.
    """

    total: jax.Array
    error: jax.Array
    noise: jax.Array
    evaluations: jax.Array
    ending: jax.Array


def flow(
    schedule: Schedule, grid: Grid, usual: int = 50, solver: likelihood.RungeKutta = likelihood.RK4
) -> LikelihoodOf:
    """The exact density by the probability-flow ODE, of pixels with uniform noise in their bins; Hutchinson's trace.

    Args:
      schedule: the process's.
      grid: `steps -> times`, from noise to the last time above 0.
      usual: steps, where none are asked for.
      solver: HEUN for tables of betas, which are known at the grid's times only.
    """

    def make(apply, parameterization, steps):
        times = grid(usual if steps is None else steps)

        def solve(denoise, keys, x):
            found = likelihood.ode_likelihood(denoise, schedule, times, x, keys, solver=solver)
            count = jnp.full(len(x), likelihood.evaluations(times, solver), jnp.int32)
            none = jnp.zeros_like(found.error)  # the error has the noise in it
            return likelihood.Solution(*found, none, count, jnp.where(jnp.isfinite(found.error), ARRIVED, NOT_FINITE))

        return _of_pixels(apply, parameterization, times, solve)

    return make


def flow_to_tolerance(schedule: Schedule, grid: Grid) -> SolvedOf:
    """The density of `flow`, to a tolerance: `(apply, parameterization, tolerance) -> likelihood_fn`.

    The tolerance is in nats an entry; `grid(1)` gives the two ends.
    """

    def make(apply, parameterization, tolerance):
        likelihood.check_tolerance(tolerance, jnp.float32)
        times = grid(1)

        def solve(denoise, keys, x):
            return likelihood.adaptive_likelihood(denoise, schedule, times, x, keys, tolerance)

        return _of_pixels(apply, parameterization, times, solve)

    return make


def _of_pixels(
    apply: Apply,
    parameterization: Parameterization,
    times: np.ndarray,
    solve: Callable[[Denoiser, jax.Array, jax.Array], likelihood.Solution],
) -> LikelihoodFn:
    """`likelihood_fn` of images of 256 levels in [-1, 1], from `(denoise, keys, x) -> Solution`."""
    parameterization.check(times)
    made = make_denoiser(apply, parameterization, (), lambda denoise, *cond: lambda x, t: denoise(x, t, *cond))
    lift = likelihood.lifted(likelihood.uniform_dequantizer)

    def bits(params, keys, x0, *cond):
        draw_keys, density_keys = rng.split(keys, 2)
        # The levels themselves are what is dequantised.
        x, log_q = lift(draw_keys, jnp.rint((x0 + 1) * 127.5).astype(jnp.int32))
        found, size = solve(made(params, *cond), density_keys, x), math.prod(x.shape[1:])
        total = likelihood.level_bits(found.log_prob, log_q, size)
        error, noise = (likelihood.bits(nats) / size for nats in (found.error, found.noise))
        return Solved(total, error, noise, found.evaluations, found.ending)

    return bits


def table_grid(schedule: Schedule, num: int) -> Grid:
    """`steps -> times` on a table of `num` betas, down to its first entry (`likelihood.table_times`)."""
    return lambda steps: likelihood.table_times(schedule, num, min(steps, num - 1))


def level_grid(schedule: Schedule, first: float = 1.0, level: float = 1e-3) -> Grid:
    """`steps -> times` of a continuous schedule (`likelihood.flow_times`)."""
    return lambda steps: np.asarray(likelihood.flow_times(schedule, steps, level, first))


def exact(apply: Apply, parameterization: Parameterization, steps: int | None) -> LikelihoodFn:
    """-log p(x0) of a network of tokens in raster order (`likelihood.make_exact_fn`); it has no steps."""
    if steps is not None:
        raise InputError(f"--steps {steps}: this likelihood is exact after one look; leave it out")
    return likelihood.make_exact_fn(apply, parameterization)


def masked(process: Process, alpha: OfTime, draws: int = 64) -> LikelihoodOf:
    """MDLM's bound in continuous time, in bits a token; `steps` is the number of times of each example."""

    def make(apply, parameterization, steps):
        loss = losses.integrand(losses_discrete.mdlm(likelihood.evaluating(apply), parameterization, process, alpha))

        def bits(params, keys, x0, *cond):
            count = draws if steps is None else steps
            return likelihood.continuous_bound(loss, params, x0, keys, *cond, draws=count)

        return bits

    return make
