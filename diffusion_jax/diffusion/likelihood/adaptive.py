"""The density of the flow to a tolerance: a pair of Runge-Kutta methods chooses the steps of each example.

The flow and its clock l are those of `flow`, followed in u = asinh(alpha / (c sigma)), in which it is smooth for
every parameterisation (`grids`), from the data to the noise, in one `lax.while_loop`.

*What is controlled.* Let e_z and e_T be what the two methods differ by in z and in the integral of the trace. To
first order log p changes by e_T + s . e_z, where s = cosh(l)^2 (tanh(l) D - z) is the gradient of log p in z, by
Tweedie's formula; and z is off by |e_z| cosh(l) standard deviations of its noise. The error of a step is

    |e_T| + sum |s_i e_i| + |e_z| cosh(l)     nats,

and a step is taken if that is at most its share of tolerance d: nine tenths of it are shared out by length in u, and
one tenth equally among all steps that may be tried, with which jumps are passed. So the errors add up to at most
`tolerance` nats an entry. Each is that of the method of lower order, while the result is of higher.

*Whose steps.* Every example has its own. Steps common to a batch have to suit its hardest example at every place, so
numbers would depend on neighbours, and the batch would not end sooner: it takes a fifth more evaluations
(docs/concepts/likelihoods.md).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import Apply, Denoiser, Guide, LikelihoodFn, Trace, Transform
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.likelihood.chain import make_denoiser
from diffusion_jax.diffusion.likelihood.flow import (
    Directions,
    check_flow,
    check_times,
    flow_ends,
    flow_slopes,
    hutchinson,
)
from diffusion_jax.diffusion.likelihood.grids import even_clock, softness, times_between
from diffusion_jax.diffusion.likelihood.runge_kutta import DOPRI5, Pair
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.schedules import Schedule

FIRST = 0.02  # of the whole way, the first step that is tried
EQUAL = 0.1  # of the tolerance, what is shared out equally
SHRINK, GROW, SAFETY = 0.2, 10.0, 0.9  # bounds of a step over the one before, and what it stays below

# How a walk ends (`Solution.ending`).
WALKING, ARRIVED, TOO_MANY, TOO_SHORT, NOT_FINITE = range(5)
ENDINGS = (
    "it has not arrived",
    "it has arrived",
    "it met its bound of steps: take a larger tolerance, or more of them",
    "its steps became too short: what the network says jumps, or is rounded above the tolerance; take a larger one",
    "the network's answer is not finite",
)


class Solution(NamedTuple):
    """What the flow says of data to a tolerance.

    Attributes:
      log_prob: [B], log density in nats; NaN where the flow did not arrive.
      latent: [B, ...], x at the first time, or where the flow was left.
      error: [B], the solver's: the errors of all steps in nats, added up, at most the tolerance times the entries of
        an example; infinite where the flow did not arrive. The noise of an estimated trace is not in it.
      noise: [B], the standard error of that trace in nats, by how far its directions are apart; 0 for the exact
        trace, and NaN for a single probe, which cannot know. It averages out over examples.
      evaluations: int32 [B], of the network with the trace's Jacobian-vector products, refused steps included. A
        batch takes as many as its largest.
      ending: int32 [B], an index into `ENDINGS`: `ARRIVED`, or why not (`check_arrived`).
    """

    log_prob: jax.Array
    latent: jax.Array
    error: jax.Array
    noise: jax.Array
    evaluations: jax.Array
    ending: jax.Array


class Walk(NamedTuple):
    """How far each example is: numbers [B]; z and its slope [B, ...]."""

    u: jax.Array
    length: jax.Array  # of the step that is tried next
    state: tuple  # z, and -int e' (dD / dz) e dl so far, of each direction, [B, P]
    slope: tuple  # of them in u
    error: jax.Array
    tries: jax.Array
    ending: jax.Array


class Way(NamedTuple):
    """The flow in u: from `high`, the data's end, to `low`.

    Attributes:
      slopes: `(z, u [B]) -> d(z, int e' (dD / dz) e dl) / du`, [B, ...] and [B, P].
      nats: `(errors, z, dz / du, u) -> [B]`, the error of a step that ends at z.
    """

    low: float
    high: float
    slopes: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    nats: Callable[[tuple, jax.Array, jax.Array, jax.Array], jax.Array]


def adaptive_likelihood(
    denoise: Denoiser,
    schedule: Schedule,
    times: ArrayLike,
    x0: jax.Array,
    keys: jax.Array,
    tolerance: float = 1e-4,
    trace: Trace | None = None,
    pair: Pair = DOPRI5,
    most: int = 2000,
) -> Solution:
    """log p(x0) of each example under the flow to a tolerance; any Gaussian schedule that is known at every t.

    What it means, and what the arguments mean, is as for `ode_likelihood`. The directions of an estimated trace are
    drawn once an example and kept along its way, as in FFJORD, for noise would break the control of steps. The
    estimate is as unbiased as with new ones, but does not average over steps: two probes are usual, for one does not
    know its noise. Neighbours change an example's number by rounding alone, which may refuse a step that would be
    taken without them: within the tolerance. Derivatives in forward mode only, for the steps are not counted before.

    Args:
      times: the first and the last, [2]: `flow_times(schedule, 1, level, first)`.
      tolerance: nats an entry, of all steps together. In float32 1e-4 is reached at a noise level of 1e-3; much
        smaller ones are lost in rounding, which is said (`TOO_SHORT`).
      pair: what makes the steps.
      most: steps that an example may try.

    Raises:
      InputError: other than two falling times above 0; a table of betas; a tolerance that is not above the rounding
        of x0; x0 that is not floating point; not a key each; an exact trace of too many entries.
    """
    first, last = check_span(times)
    keys = check_flow(x0, keys)
    check_tolerance(tolerance, x0.dtype)
    if most < 1:
        raise InputError(f"a walk takes at least 1 step, not {most}")
    directions = Directions(*(hutchinson(2) if trace is None else trace)(keys, x0))
    way, ends = flow_way(denoise, schedule, first, last, directions), flow_ends(schedule, first, last)
    begin = ends.shrink * x0, jnp.zeros(directions.along.shape[1::-1], x0.dtype)
    walk = follow(way, begin, tolerance * math.prod(x0.shape[1:]), pair, most)
    (z, parts), arrived = walk.state, walk.ending == ARRIVED
    return Solution(
        jnp.where(arrived, ends.log_prob(z, directions.trace(parts)), jnp.nan),
        ends.stretch * z,
        jnp.where(arrived, walk.error, jnp.inf),
        directions.noise(parts),
        walk.tries * (len(pair.nodes) - 1),
        walk.ending,
    )


def flow_way(denoise: Denoiser, schedule: Schedule, first: float, last: float, directions: Directions) -> Way:
    soft = softness(schedule, first)
    low, high = (float(even_clock(schedule, t, soft)) for t in (first, last))
    time, slopes_in_l = times_between(schedule, soft, low, high), flow_slopes(denoise)

    def clocks(u):
        """tanh(l), cosh(l) and dl / du."""
        ratio = soft * jnp.sinh(u)
        cosh = jnp.sqrt(1 + ratio**2)
        return ratio / cosh, cosh, soft * jnp.cosh(u) / cosh

    def slopes(z, u):
        t, (pull, _, rate) = time(u), clocks(u)
        found = slopes_in_l(z, t, jnp.hypot(schedule.alpha(t), schedule.sigma(t)), pull, directions.along)
        return jax.tree.map(lambda slope: (expand(rate, slope) * slope).astype(z.dtype), found)

    def nats(errors, z, slope, u):
        e_z, e_traced = errors[0], directions.trace(errors[1])
        pull, cosh, rate = (expand(number, z) for number in clocks(u))
        x0_hat = slope / rate + pull * z
        score = cosh**2 * (pull * x0_hat - z)
        shifts = jnp.stack([score * e_z, cosh * e_z]).reshape(2, len(z), -1)
        return jnp.abs(e_traced) + jnp.abs(shifts[0]).sum(-1) + jnp.sqrt((shifts[1] ** 2).sum(-1))

    return Way(low, high, slopes, nats)


def follow(way: Way, begin: tuple, allowed: float, pair: Pair, most: int) -> Walk:
    """All examples at their ends: they start at `begin`, and errors may add up to `allowed` nats."""
    dtype, span = begin[1].dtype, way.high - way.low
    shortest = 8 * float(jnp.finfo(dtype).eps) * span
    rows, nodes, spare = (jnp.asarray(table, dtype) for table in (pair.stages, pair.nodes, pair.spare))
    stages = rows[1:], nodes[1:], np.arange(1, len(spare))

    def attempt(walk: Walk, step):
        """State, slope and error of both methods after `step`."""

        def stage(carry, inner):
            known, _ = carry
            row, node, index = inner
            here = jax.tree.map(lambda y, k: y - expand(step, y) * jnp.tensordot(row, k, 1), walk.state, known)
            now = way.slopes(here[0], walk.u - node * step)
            return (jax.tree.map(lambda all, one: all.at[index].set(one), known, now), here), None

        known = jax.tree.map(lambda k: jnp.zeros((len(spare), *k.shape), k.dtype).at[0].set(k), walk.slope)
        (known, state), _ = jax.lax.scan(stage, (known, walk.state), stages)
        errors = jax.tree.map(lambda k: expand(step, k[0]) * jnp.tensordot(spare, k, 1), known)
        return state, jax.tree.map(lambda k: k[-1], known), errors

    def body(walk: Walk) -> Walk:
        left = walk.u - way.low
        step = jnp.minimum(walk.length, left)
        u = jnp.where(walk.length < left, walk.u - step, way.low)
        state, slope, errors = attempt(walk, step)
        nats = way.nats(errors, state[0], slope[0], u)
        bound = allowed * ((1 - EQUAL) * step / span + EQUAL / most)
        taken = nats <= bound  # not where it is no number
        # The error over the length is of one order less than the error.
        factor = jnp.clip(SAFETY * (bound / nats) ** (1 / (pair.order - 1)), SHRINK, GROW)
        length = step * jnp.where(jnp.isfinite(nats), factor, SHRINK)
        length = jnp.where(taken & (step == 0), FIRST * span, length)
        tries = walk.tries + 1
        broken = jnp.where(jnp.isfinite(nats), TOO_SHORT, NOT_FINITE)
        ending = jnp.where(length < shortest, broken, jnp.where(tries >= most, TOO_MANY, WALKING))
        ending = jnp.where(taken & (u == way.low), ARRIVED, ending)
        moved = Walk(u, length, state, slope, walk.error + nats, tries, ending)
        stayed = walk._replace(length=length, tries=tries, ending=ending)
        return _where(walk.ending == WALKING, _where(taken, moved, stayed), walk)

    # A step of length 0 comes first and finds the slope: so the network stands in the program once.
    size, dtype = len(begin[1]), begin[1].dtype
    zeros, none = jnp.zeros(size, dtype), jnp.full(size, WALKING, jnp.int32)
    walk = Walk(zeros + way.high, zeros, begin, jax.tree.map(jnp.zeros_like, begin), zeros, none, none)
    return jax.lax.while_loop(lambda walk: (walk.ending == WALKING).any(), body, walk)


def _where(mask, a: Walk, b: Walk) -> Walk:
    return jax.tree.map(lambda a, b: jnp.where(expand(mask, a), a, b), a, b)


def make_adaptive_density_fn(
    apply: Apply,
    parameterization: Parameterization,
    schedule: Schedule,
    times: ArrayLike,
    transforms: Sequence[Transform] = (),
    guide: Guide = conditioned,
    tolerance: float = 1e-4,
    trace: Trace | None = None,
    pair: Pair = DOPRI5,
    most: int = 2000,
) -> LikelihoodFn:
    """`density_fn(params, keys [B], x0 [B, ...], *cond) -> Solution`; arguments as of `adaptive_likelihood` and
    `make_density_fn`."""
    times = check_span(times)
    parameterization.check(times)
    made = make_denoiser(apply, parameterization, transforms, guide)

    def density_fn(params, keys, x0, *cond):
        return adaptive_likelihood(made(params, *cond), schedule, times, x0, keys, tolerance, trace, pair, most)

    return on_any_mesh(density_fn)


def check_arrived(solution: Solution) -> Solution:
    """`solution`, concrete, or `NotFiniteError` with the first example whose flow did not arrive, and why."""
    lost = np.flatnonzero(np.asarray(solution.ending) != ARRIVED)
    if len(lost):
        why = ENDINGS[int(solution.ending[lost[0]])]
        raise NotFiniteError(f"the flow of {len(lost)} of {len(solution.ending)} examples was left: {lost[0]}, {why}")
    return solution


def check_span(times: ArrayLike) -> np.ndarray:
    """`times` as float64 [2], or `InputError` unless they are two, fall, and end above 0."""
    times = check_times(times)
    if len(times) != 2:
        raise InputError(f"a walk to a tolerance takes its first and last time, not {len(times)} times")
    return times


def check_tolerance(tolerance: float, dtype: Any) -> float:
    """`tolerance`, or `InputError` unless it is finite and above the rounding of `dtype`."""
    least = 4 * float(jnp.finfo(dtype).eps)
    if not least <= tolerance < math.inf:
        raise InputError(f"a tolerance of {tolerance:g} in {jnp.dtype(dtype)}: take at least {least:.1g}, and finite")
    return tolerance
