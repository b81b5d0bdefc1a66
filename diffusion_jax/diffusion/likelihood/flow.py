"""The density of the probability-flow ODE, by the instantaneous change of variables.

(Song et al. 2021, section 4.3 and appendix D.2; Chen et al. 2018, theorem 1.) All Gaussian diffusions have one flow.
With z = x / sqrt(alpha^2 + sigma^2) and the clock l = asinh(alpha / sigma),

    dz / dl = D - tanh(l) z,     D the denoiser's mean,

which is smooth and bounded from l = 0, noise alone, to any large l near the data, where steps of l are steps of half
the log-SNR. The linear part of its divergence is integrated by hand; that of D is traced along the way. For y = x0 +
v eps, the data blurred by the noise level v = sigma / alpha = 1 / sinh(l) at the end of the grid, d entries,

    log p(y) = log N(z_1; 0, I) - d log v - d log cosh(l_1) - int_{l_1}^{l} trace(dD / dz) dl.

At t = 0 the flow has no slope, so v > 0: the density of y stands for that of x0. For a smooth density the difference
is O(v^2); that of data on levels or on a surface grows without end as v -> 0, so dequantise levels, and keep v well
below their width.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import (
    Apply,
    Denoiser,
    Guide,
    Initializer,
    LikelihoodFn,
    Slopes,
    Time,
    Trace,
    Transform,
)
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.likelihood.chain import check_keys, make_denoiser
from diffusion_jax.diffusion.likelihood.grids import clock, times_at
from diffusion_jax.diffusion.likelihood.runge_kutta import RK4, RungeKutta, said_error
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.timesteps import check_grid

STRIDES = (4, 2, 1)  # steps of the grid in one step of each walk


class Density(NamedTuple):
    """What the flow says of data.

    Attributes:
      log_prob: [B], log density in nats.
      latent: [B, ...], x at times[0], where the flow takes the data.
      error: [B], >= 0, an estimate of the solver's error of log_prob, in nats, as fewer steps tell it
        (`runge_kutta.said_error`). Fewer steps draw other directions for an estimated trace, so its noise enters too.
    """

    log_prob: jax.Array
    latent: jax.Array
    error: jax.Array


# ---- Traces: `(keys [B], x [B, ...]) -> Directions`, or a tuple of its first two.


class Directions(NamedTuple):
    """Directions e, of which the trace of J is share * sum of e' J e.

    Attributes:
      along: [P, B, ...].
      share: a number.
      random: whether they are P independent draws, so that the trace has noise.
    """

    along: jax.Array
    share: float
    random: bool = False

    def trace(self, parts: jax.Array) -> jax.Array:
        """[B], from e' J e of each direction, [B, P]."""
        return (self.share * parts.sum(-1)).astype(parts.dtype)

    def noise(self, parts: jax.Array) -> jax.Array:
        """[B], the standard error of `trace`, from how far its directions are apart; NaN for one random direction."""
        apart = jnp.std(parts, axis=-1, ddof=1) * self.share * np.sqrt(parts.shape[-1])
        return jnp.where(self.random, apart, 0.0).astype(parts.dtype)


def exact_trace(limit: int = 128) -> Trace:
    """The trace itself, in as many Jacobian-vector products as an example has entries, at once.

    Raises:
      InputError: in use, for examples of more than `limit` entries.
    """

    def directions(keys, x):
        size = math.prod(x.shape[1:])
        if size > limit:
            raise InputError(f"an exact trace of {size} entries: take hutchinson(), or exact_trace(limit={size})")
        basis = jnp.eye(size, dtype=x.dtype).reshape(size, 1, *x.shape[1:])
        return Directions(jnp.broadcast_to(basis, (size, *x.shape)), 1.0)

    return directions


def rademacher(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
    """Signs, +-1: the law of the least variance among independent directions."""
    return jax.random.rademacher(key, shape, dtype)


def hutchinson(probes: int = 1, law: Initializer = rademacher) -> Trace:
    """An unbiased estimate from `probes` random directions (Hutchinson 1990; FFJORD, Grathwohl et al. 2019).

    Args:
      probes: directions, each a Jacobian-vector product. On a grid they are drawn anew at every evaluation of the
        network, so that steps average over them too; to a tolerance (`adaptive`) they are kept along the way.
        `InputError` unless >= 1.
      law: `(key, shape, dtype) -> array` of independent entries with mean 0 and variance 1: `rademacher`,
        `jax.random.normal`.
    """
    if probes < 1:
        raise InputError(f"a trace takes at least 1 probe, not {probes}")

    def directions(keys, x):
        def one(key):
            return rng.flat(law, key, (probes, *x.shape[1:]), x.dtype)

        return Directions(jax.vmap(one, out_axes=1)(keys), 1 / probes, True)

    return directions


# ---- The density.


class FlowPlan(NamedTuple):
    """Of each step [N] or of its stages [N, S]: times and clocks, the data's end of the grid first."""

    number: jax.Array | np.ndarray
    fresh: jax.Array | np.ndarray  # whether a grid begins here
    t: jax.Array | np.ndarray
    scale: jax.Array | np.ndarray  # sqrt(alpha^2 + sigma^2): x = scale z
    pull: jax.Array | np.ndarray  # tanh(l)
    length: jax.Array | np.ndarray


def flow_plan(schedule: Schedule, solver: RungeKutta, times: np.ndarray) -> FlowPlan:
    rising = times[::-1]
    start, end = rising[:-1, None], rising[1:, None]
    clocks = clock(schedule, rising)
    length = np.diff(clocks)
    node = np.asarray(solver.nodes)
    value = clocks[:-1, None] + node * length[:, None]
    t = np.where(node == 0, start, end)
    inner = (node > 0) & (node < 1)
    if inner.any():
        try:
            t[:, inner] = times_at(schedule, value[:, inner])
        except InputError:
            raise InputError("a table of betas has no times between its own: take solver=likelihood.HEUN") from None
    scale = np.hypot(schedule.alpha(t), schedule.sigma(t))
    number = np.arange(len(length))
    return FlowPlan(number, number == 0, t, scale, np.tanh(value), length)


def nested_plans(schedule: Schedule, solver: RungeKutta, times: np.ndarray) -> FlowPlan:
    """A quarter of the steps, half of them, and all, one after the other; every step has a number of its own."""
    count, plans = len(times) - 1, []
    for stride, number in zip(STRIDES, (2 * count, count, 0), strict=True):
        rising = np.unique(np.append(times[::-1][::stride], times[0]))
        plan = flow_plan(schedule, solver, rising[::-1])
        plans.append(plan._replace(number=plan.number + number))
    return FlowPlan(*map(np.concatenate, zip(*plans, strict=True)))


def flow_slopes(denoise: Denoiser) -> Slopes:
    """`(z, t, scale, pull, along [P, B, ...]) -> (dz / dl [B, ...], e' (dD / dz) e [B, P])`.

    t, scale and pull are scalars or [B].
    """

    def slopes(z, t, scale, pull, along):
        scale, pull = expand(scale, z), expand(pull, z)

        def estimate(z):
            return denoise((scale * z).astype(z.dtype), t).mean.astype(z.dtype)

        x0_hat, products = jax.vmap(lambda e: jax.jvp(estimate, (z,), (e,)))(along)
        parts = jnp.sum((along * products).reshape(*along.shape[:2], -1), axis=-1)
        return (x0_hat[0] - pull * z).astype(z.dtype), parts.T.astype(z.dtype)

    return slopes


class Ends(NamedTuple):
    """What the two ends of the flow add to what is summed along the way.

    Attributes:
      shrink: x0 times this is z where the walk starts.
      stretch: z times this is x where it ends.
      volume: log of the volume's change that is known by hand, nats an entry.
    """

    shrink: float
    stretch: float
    volume: float

    def log_prob(self, z: jax.Array, traced: jax.Array) -> jax.Array:
        """[B], from the latent z [B, ...] and the integral of the trace over the walk, -int trace dl."""
        standard = -0.5 * jnp.sum((z**2).reshape(len(z), -1), axis=1)
        size = math.prod(z.shape[1:])
        return (standard + traced - size * (self.volume + 0.5 * np.log(2 * np.pi))).astype(z.dtype)


def flow_ends(schedule: Schedule, first: Time, last: Time) -> Ends:
    start, end = clock(schedule, first), clock(schedule, last)
    level = schedule.sigma(last) / schedule.alpha(last)
    stretch = np.hypot(schedule.alpha(first), schedule.sigma(first))
    return Ends(float(np.tanh(end)), float(stretch), float(np.log(level) + np.log(np.cosh(start))))


def ode_likelihood(
    denoise: Denoiser,
    schedule: Schedule,
    times: ArrayLike,
    x0: jax.Array,
    keys: jax.Array,
    trace: Trace | None = None,
    solver: RungeKutta = RK4,
) -> Density:
    """log p(x0) of each example under the flow, its error, and the noise it comes from; any Gaussian schedule.

    The model is the flow from x_1 ~ N(0, alpha_1^2 + sigma_1^2), which `samplers.heun` walks down; here it is walked
    up from sigma / alpha at times[-1]. What the result is exact in: the trace, if `exact_trace()`; the solver's order
    in the steps, 4 or 2; float32 rounding grows with d, about 1e-5 bits an entry at d = 3072. The flow is walked in a
    half and a quarter of the steps too, for the error: 1.75 times the work. `adaptive_likelihood` chooses its steps.

    Args:
      denoise: `(x_t [B, ...], t) -> Estimate`; its mean is used, and must be smooth: leave clipping out.
      schedule: the process's.
      times: a falling grid, [N + 1], N >= 2, from times[0] (1, if the denoiser is finite there) to times[-1] > 0:
        `flow_times`, or `table_times` for `HEUN`.
      x0: float [B, ...], taken as y = x0 + v eps, see above. 8-bit images are dequantised first (`dequantization`).
      keys: one key an example, [B], for the trace's directions.
      trace: `hutchinson(...)`, one Rademacher probe by default, or `exact_trace()`.
      solver: `RK4` or `HEUN`.

    Raises:
      InputError: a grid that does not fall, reaches 0 or has one step; x0 that is not floating point; not a key each;
        an exact trace of too many entries; times between those of a table.
    """
    times, keys = check_steps(times), check_flow(x0, keys)
    plan = nested_plans(schedule, solver, times)
    stages = np.asarray(solver.stages), np.arange(len(solver.nodes))
    plan, stages, weights = _floats((plan, stages, np.asarray(solver.weights)), x0.dtype)
    slopes, directions = flow_slopes(denoise), hutchinson() if trace is None else trace
    ends = flow_ends(schedule, times[0], times[-1])
    start = ends.shrink * x0, jnp.zeros(len(x0), x0.dtype)

    def body(carry, step):
        (quarter, half), before = carry
        # Where a grid begins, the one before it is done.
        done = jax.tree.map(partial(jnp.where, step.fresh), (half, ends.log_prob(*before)), (quarter, half))
        z, total = jax.tree.map(partial(jnp.where, step.fresh), start, before)
        step_keys = rng.each(keys, step.number)

        def stage(known, inner):
            (row, index), t, scale, pull = inner
            rise = jnp.tensordot(row, known[0], 1)
            here = z + step.length * rise
            drawn = Directions(*directions(rng.each(step_keys, index), here))
            slope, parts = slopes(here, t, scale, pull, drawn.along)
            now = slope, drawn.trace(parts)
            return jax.tree.map(lambda all, one: all.at[index].set(one), known, now), None

        known = jax.tree.map(lambda a: jnp.zeros((len(weights), *a.shape), a.dtype), (z, total))
        known, _ = jax.lax.scan(stage, known, (stages, step.t, step.scale, step.pull))
        rise, traced = jax.tree.map(lambda all: jnp.tensordot(weights, all, 1), known)
        return (done, (z + step.length * rise, total + step.length * traced)), None

    # The walk's lengths are negative: it sums -int trace dl.
    ((quarter, half), (z, traced)), _ = jax.lax.scan(body, ((start[1], start[1]), start), plan)
    log_prob = ends.log_prob(z, traced)
    return Density(log_prob, ends.stretch * z, said_error(quarter, half, log_prob, solver.order))


def evaluations(times: np.ndarray, solver: RungeKutta = RK4) -> int:
    """How often `ode_likelihood` evaluates the network on a grid, with the trace's Jacobian-vector products."""
    return sum(-(-(len(times) - 1) // stride) for stride in STRIDES) * len(solver.nodes)


def make_density_fn(
    apply: Apply,
    parameterization: Parameterization,
    schedule: Schedule,
    times: ArrayLike,
    transforms: Sequence[Transform] = (),
    guide: Guide = conditioned,
    trace: Trace | None = None,
    solver: RungeKutta = RK4,
) -> LikelihoodFn:
    """`density_fn(params, keys [B], x0 [B, ...], *cond) -> Density`; arguments as of `ode_likelihood` and
    `make_sample_fn`."""
    times = check_steps(times)
    parameterization.check(times)
    made = make_denoiser(apply, parameterization, transforms, guide)

    def density_fn(params, keys, x0, *cond):
        return ode_likelihood(made(params, *cond), schedule, times, x0, keys, trace, solver)

    return on_any_mesh(density_fn)


def check_flow(x0: jax.Array, keys: jax.Array) -> jax.Array:
    """`keys` as typed keys, or `InputError` unless there is one for each float x0."""
    keys = check_keys(keys, x0)
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise InputError(f"the flow's density is one of floats, not of {x0.dtype}: see likelihood.dequantized")
    return keys


def _floats(tree, dtype):
    """Float64 tables as arrays of `dtype`: what they touch keeps the data's, under jax_enable_x64 too."""
    return jax.tree.map(lambda a: jnp.asarray(a, dtype) if a.dtype == np.float64 else jnp.asarray(a), tree)


def check_times(times: ArrayLike) -> np.ndarray:
    """`times` as a float64 vector, or `InputError` unless it falls and ends above 0."""
    times = check_grid(times)
    if times[-1] == 0:
        raise InputError("the flow has no slope at t = 0: end the grid above it (likelihood.flow_times)")
    return times


def check_steps(times: ArrayLike) -> np.ndarray:
    """`check_times`, and of at least two steps."""
    times = check_times(times)
    if len(times) < 3:
        raise InputError("a likelihood that knows its error takes at least 2 steps, not 1")
    return times
