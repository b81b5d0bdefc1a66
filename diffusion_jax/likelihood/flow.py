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
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import rng, schedules
from diffusion_jax.errors import InputError
from diffusion_jax.guidance import given
from diffusion_jax.likelihood.chain import check_keys, make_denoiser
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.schedules import Schedule
from diffusion_jax.timesteps import check_grid


class Density(NamedTuple):
    """What the flow says of data.

    Attributes:
      log_prob: [B], log density in nats.
      latent: [B, ...], x at times[0], where the flow takes the data.
    """

    log_prob: jax.Array
    latent: jax.Array


# ---- Solvers.


class RungeKutta(NamedTuple):
    """An explicit Runge-Kutta method: stage i at `nodes[i]` of a step, from slopes weighted by `stages[i]`."""

    nodes: tuple
    stages: tuple
    weights: tuple


# Second order, two evaluations a step, at the times of the grid alone: for tables of betas.
HEUN = RungeKutta((0.0, 1.0), ((0.0, 0.0), (1.0, 0.0)), (0.5, 0.5))
# Fourth order, four evaluations a step, two of them between the grid's times.
RK4 = RungeKutta(
    (0.0, 0.5, 0.5, 1.0), ((0, 0, 0, 0), (0.5, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 1.0, 0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
)


# ---- Traces: `(keys [B], x [B, ...]) -> (directions [P, B, ...], share)`; the trace is share * sum of e' J e.


def exact_trace(limit: int = 128) -> Callable:
    """The trace itself, in as many Jacobian-vector products as an example has entries, at once.

    Raises:
      InputError: in use, for examples of more than `limit` entries.
    """

    def directions(keys, x):
        size = math.prod(x.shape[1:])
        if size > limit:
            raise InputError(f"an exact trace of {size} entries: take hutchinson(), or exact_trace(limit={size})")
        basis = jnp.eye(size, dtype=x.dtype).reshape(size, 1, *x.shape[1:])
        return jnp.broadcast_to(basis, (size, *x.shape)), 1.0

    return directions


def rademacher(key, shape, dtype):
    """Signs, +-1: the law of the least variance among independent directions."""
    return jax.random.rademacher(key, shape, dtype)


def hutchinson(probes: int = 1, law: Callable = rademacher) -> Callable:
    """An unbiased estimate from `probes` random directions (Hutchinson 1990; FFJORD, Grathwohl et al. 2019).

    Args:
      probes: directions, each a Jacobian-vector product; drawn anew at every evaluation of the network, so that
        steps average over them too. `InputError` unless >= 1.
      law: `(key, shape, dtype) -> array` of independent entries with mean 0 and variance 1: `rademacher`,
        `jax.random.normal`.
    """
    if probes < 1:
        raise InputError(f"a trace takes at least 1 probe, not {probes}")

    def directions(keys, x):
        def one(key):
            return rng.flat(law, key, (probes, *x.shape[1:]), x.dtype)

        return jax.vmap(one, out_axes=1)(keys), 1 / probes

    return directions


# ---- Grids.


def clock(schedule: Schedule, t) -> np.ndarray:
    """asinh(alpha / sigma) at times t > 0 (NumPy): 0 for noise alone, half the log-SNR plus log 2 near the data."""
    return np.arcsinh(schedule.alpha(t) / schedule.sigma(t))


def flow_times(schedule: Schedule, steps: int, level: float = 1e-3, first: float = 1.0) -> np.ndarray:
    """Times from `first` down to the noise level sigma / alpha = `level`, even in `clock`; [steps + 1].

    For schedules known at every t. Take first < 1 where a network says nothing at alpha = 0, as of eps.

    Raises:
      InputError: no steps, or a level that the schedule does not pass below `first`.
    """
    if steps < 1 or not level > 0:
        raise InputError(f"a grid takes steps >= 1 and a noise level > 0, not {steps} and {level}")
    start, end = clock(schedule, np.asarray(first, np.float64)), np.arcsinh(1 / level)
    if not end > start:
        raise InputError(f"the noise at t = {first:g} is below the level {level:g}; take a smaller level")
    return np.concatenate([[first], _at(schedule, np.linspace(start, end, steps + 1)[1:])])


def _at(schedule: Schedule, value) -> np.ndarray:
    """The times of clock `value`."""
    with np.errstate(divide="ignore"):
        return schedules.inverse_log_snr(schedule, 2 * np.log(np.sinh(value)))


# ---- The density.


class FlowPlan(NamedTuple):
    """Of each step [N] or of its stages [N, S]: times and clocks, the data's end of the grid first."""

    number: jax.Array
    t: jax.Array
    scale: jax.Array  # sqrt(alpha^2 + sigma^2): x = scale z
    pull: jax.Array  # tanh(l)
    length: jax.Array


def flow_plan(schedule: Schedule, solver: RungeKutta, times) -> FlowPlan:
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
            t[:, inner] = _at(schedule, value[:, inner])
        except InputError:
            raise InputError("a table of betas has no times between its own: take solver=likelihood.HEUN") from None
    scale = np.hypot(schedule.alpha(t), schedule.sigma(t))
    return FlowPlan(np.arange(len(length)), t, scale, np.tanh(value), length)


def ode_likelihood(
    denoise: Callable,
    schedule: Schedule,
    times,
    x0,
    keys,
    trace: Callable | None = None,
    solver: RungeKutta = RK4,
) -> Density:
    """log p(x0) of each example under the flow, and the noise it comes from. For any Gaussian process's schedule.

    The model is the flow from x_1 ~ N(0, alpha_1^2 + sigma_1^2), which `samplers.heun` walks down; here it is walked
    up from sigma / alpha at times[-1]. What the result is exact in: the trace, if `exact_trace()`; the solver's order
    in the steps, 4 or 2; float32 rounding grows with d, about 1e-5 bits an entry at d = 3072.

    Args:
      denoise: `(x_t [B, ...], t) -> Estimate`; its mean is used, and must be smooth: leave clipping out.
      schedule: the process's.
      times: a falling grid, [N + 1], from times[0] (1, if the denoiser is finite there) to times[-1] > 0:
        `flow_times`, or a table's own times for `HEUN`.
      x0: float [B, ...], taken as y = x0 + v eps, see above. 8-bit images are dequantised first (`dequantization`).
      keys: one key an example, [B], for the trace's directions.
      trace: `hutchinson(...)`, one Rademacher probe by default, or `exact_trace()`.
      solver: `RK4` or `HEUN`.

    Raises:
      InputError: a grid that does not fall or reaches 0; x0 that is not floating point; not a key each; an exact
        trace of too many entries; times between those of a table.
    """
    times, keys = _check(times), check_keys(keys, x0)
    if not jnp.issubdtype(x0.dtype, jnp.floating):
        raise InputError(f"the flow's density is one of floats, not of {x0.dtype}: see likelihood.dequantized")
    directions = hutchinson() if trace is None else trace
    plan = flow_plan(schedule, solver, times)
    stages = jnp.asarray(solver.stages, x0.dtype), jnp.arange(len(solver.nodes))
    weights = jnp.asarray(solver.weights, x0.dtype)

    def slopes(z, t, scale, pull, keys):
        """dz / dl and trace(dD / dz)."""

        def estimate(z):
            return denoise(scale * z, t).mean

        along, share = directions(keys, z)
        x0_hat, products = jax.vmap(lambda e: jax.jvp(estimate, (z,), (e,)))(along)
        every = tuple(range(2, products.ndim))
        return x0_hat[0] - pull * z, share * jnp.sum(along * products, axis=every).sum(0)

    def body(state, step):
        z, total = state
        step_keys = rng.each(keys, step.number)

        def stage(known, inner):
            (row, index), t, scale, pull = inner
            rise = jnp.tensordot(row, known[0], 1)
            now = slopes((z + step.length * rise).astype(z.dtype), t, scale, pull, rng.each(step_keys, index))
            return jax.tree.map(lambda all, one: all.at[index].set(one), known, now), None

        known = jax.tree.map(lambda a: jnp.zeros((len(weights), *a.shape), a.dtype), (z, total))
        known, _ = jax.lax.scan(stage, known, (stages, step.t, step.scale, step.pull))
        rise, traced = jax.tree.map(lambda all: jnp.tensordot(weights, all, 1), known)
        return ((z + step.length * rise).astype(z.dtype), total + step.length * traced), None

    level = schedule.sigma(times[-1]) / schedule.alpha(times[-1])
    last, first = clock(schedule, times[-1]), clock(schedule, times[0])
    state = (np.tanh(last) * x0).astype(x0.dtype), jnp.zeros(len(x0), x0.dtype)
    # The walk's lengths are negative: it sums -int trace dl.
    (z, traced), _ = jax.lax.scan(body, state, plan)
    size = math.prod(x0.shape[1:])
    standard = -0.5 * jnp.sum((z**2).reshape(len(z), -1), axis=1) - 0.5 * size * np.log(2 * np.pi)
    log_prob = standard + traced - size * (np.log(level) + np.log(np.cosh(first)))
    scale = np.hypot(schedule.alpha(times[0]), schedule.sigma(times[0]))
    return Density(log_prob.astype(x0.dtype), (scale * z).astype(x0.dtype))


def make_density_fn(
    apply: Callable,
    parameterization: Parameterization,
    schedule: Schedule,
    times,
    transforms: Sequence[Callable] = (),
    guide: Callable = given,
    trace: Callable | None = None,
    solver: RungeKutta = RK4,
) -> Callable:
    """`density_fn(params, keys [B], x0 [B, ...], *cond) -> Density`; arguments as of `ode_likelihood` and
    `make_sample_fn`."""
    times = _check(times)
    made = make_denoiser(apply, parameterization, transforms, guide)

    def density_fn(params, keys, x0, *cond):
        return ode_likelihood(made(params, *cond), schedule, times, x0, keys, trace, solver)

    return density_fn


def _check(times) -> np.ndarray:
    times = check_grid(times)
    if times[-1] == 0:
        raise InputError("the flow has no slope at t = 0: end the grid above it (likelihood.flow_times)")
    return times
