"""Inpainting with an unconditional model: known pixels are put back at every level of noise.

Each function makes a `run`, `(sampler, times, denoise, x, keys) -> data`, for `samplers.make_sample_fn(run=...)`, in
the place of `samplers.solve`. What is known comes out as it was given, if the grid ends at 0.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import at_least_single, like
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Denoiser, Run, Tree
from diffusion_jax.diffusion import processes
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.samplers import Sampler
from diffusion_jax.diffusion.samplers.core import alone, as_before, rounded
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.timesteps import check_grid


def replacement(process: Process, known: Tree, mask: Tree) -> Run:
    """The replacement method (Song et al. 2021, appendix I.2): at every time the known part is q(x_t | known) anew.

    A step makes the unknown part fit the known one of its own time only, so the two agree less than they should, and
    the law is not the conditional one. It is `repaint` without resampling, for every process: tokens too.

    Args:
      process: corrupts what is known.
      known: data [B, ...], of any value where it is not known; or a dictionary of such (`processes.product`).
      mask: known where it is above 0.5; broadcasts to `known`.

    Raises:
      InputError: for a mask that does not broadcast. The run: for data of another shape than `known`, and for a
        sampler that keeps more than the data and has no `put`.
    """
    return _run(known, mask, partial(_anew, process), _once, _nothing)


def path(process: Process, known: Tree, mask: Tree) -> Run:
    """After every step the known part is where its noise has it: x_t = F_t(known, eps), of one eps for all times.

    eps is the noise of the chain's start (`rng.each(keys, 0)`), so the known part is on one path of a deterministic
    sampler. The start is left as it is given. diffusers' pipelines of Stable Diffusion inpaint so; in a step that
    looks twice, PNDM's first, theirs put it back between the looks as well.

    Arguments and errors as of `replacement`.
    """

    def at(known, t, keys, number):
        del number
        return jax.vmap(lambda key, x: process.corrupt(key, x, t)[0])(rng.each(keys, 0), known)

    return _run(known, mask, at, _once, _nothing, first=False)


def clean(known: Tree, mask: Tree) -> Run:
    """The known part is without noise at every time, as diffusers' pipelines of DeepFloyd's IF have it.

    A network that was trained on noise alone is not shown what it knows: the law is not the conditional one.
    Arguments and errors as of `replacement`.
    """
    return _run(known, mask, lambda known, t, keys, number: known, _once, _nothing)


def repaint(schedule: Schedule, known: Tree, mask: Tree, jump: int = 10, resamplings: int = 10) -> Run:
    """RePaint (Lugmayr et al. 2022, algorithm 1): now and then go back up, and let the two parts agree.

    Every `jump` steps of the grid, counted from its last but one time, the walk goes `jump` steps back up, by
    q(x_t | x_s) in one draw, and down again, until it has come down `resamplings` times. The network is not evaluated
    on the way up: that is N + (resamplings - 1) jump floor((N - 1) / jump) steps in place of N, in one `lax.scan`.

    Args:
      schedule: of the process, which is Gaussian.
      known, mask: as of `replacement`; float arrays.
      jump: the paper's j, >= 1, and less than the grid's number of steps; both are 10 in the paper.
      resamplings: the paper's r, how often each stretch is walked down; >= 1. 1 is `replacement`.

    Raises:
      InputError: for another jump or number of resamplings, and as `replacement`. The run: also for a sampler that
        keeps more than x from step to step, such as a multistep one.
    """
    if not (jump >= 1 and resamplings >= 1):
        raise InputError(f"RePaint needs jump >= 1 and resamplings >= 1, not {jump} and {resamplings}")

    def undo(s, t):
        moved = t > s
        keep = np.divide(schedule.alpha(t), schedule.alpha(s), where=moved, out=np.ones_like(t))
        fresh = np.where(moved, schedule.sigma(t) ** 2 - (keep * schedule.sigma(s)) ** 2, 0.0)
        return Partial(_renoised, keep, np.sqrt(np.maximum(fresh, 0.0)))

    at = partial(_anew, processes.gaussian(schedule))
    run = _run(known, mask, at, lambda steps: route(steps, jump, resamplings), undo)

    def of_data_alone(sampler: Sampler, times, denoise: Denoiser, x, keys):
        if sampler.init(x) is not x:
            raise InputError(
                "RePaint goes back up, and what a multistep sampler remembers does not; take ddim or heun"
            )
        return run(sampler, times, denoise, x, keys)

    return of_data_alone


def route(steps: int, jump: int, resamplings: int) -> tuple[np.ndarray, np.ndarray]:
    """RePaint's walk over the points N, ..., 0 of a grid of N steps (Lugmayr et al. 2022, section 4.2).

    Every step leads one point down. (stood, start), int [M] each: where the walk stood before a step, and the point
    from which it is made: `jump` higher where something is undone first, else the same. The last step, to 0, is made
    once. Raises `InputError` unless jump < steps.
    """
    if jump >= steps:
        raise InputError(f"a jump of {jump} does not fit into {steps} steps: take a jump below that")
    left = {point: resamplings - 1 for point in range(1, steps - jump + 1, jump)}
    moves, point = [], steps
    while point > 0:
        again = left.get(point, 0) > 0
        start = point + jump if again else point
        left[point] = left.get(point, 0) - again
        moves.append((point, start))
        point = start - 1
    return tuple(np.array(moves).T)


def _renoised(keep, fresh, keys, x):
    return keep * x + fresh * rng.normal_like(keys, x)


def _anew(process: Process, known: Tree, t, keys, number) -> Tree:
    """What is known, with noise of the step's own."""
    return jax.vmap(lambda key, x: process.corrupt(key, x, t)[0])(_streams(keys, "known", number), known)


def _once(steps: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(steps, 0, -1),) * 2


def _nothing(s, t):
    return Partial(lambda keys, x: x)


def _run(
    known: Tree,
    mask: Tree,
    at: Callable[[Tree, jax.Array, jax.Array, jax.Array], Tree],
    walk: Callable[[int], tuple[np.ndarray, np.ndarray]],
    undo: Callable[[np.ndarray, np.ndarray], Callable[[jax.Array, Tree], Tree]],
    first: bool = True,
) -> Run:
    """A walk that keeps what is known.

    Args:
      at: `(known, t, keys [B], number of the step) -> ` the known part at the time t, above 0.
      walk: as `route`.
      undo: `(s [M], t [M]) -> ` a pytree and function `(keys, x_s) -> x_t`, as bridges are.
      first: whether it is put in at the start too.
    """
    known = jax.tree.map(jnp.asarray, known)
    mask = jax.tree.map(lambda m, k: _mask_for(m, k.shape), mask, known)

    def hold(x, t, keys, number):
        held = jax.tree.map(lambda x, noised: jnp.where(t > 0, noised, x), known, at(known, t, keys, number))
        return jax.tree.map(lambda m, k, x: jnp.where(m, k.astype(x.dtype), x), mask, held, x)

    def run(sampler: Sampler, times, denoise: Denoiser, x, keys):
        if sampler.put is alone and sampler.init(x) is not x:
            raise InputError(
                "this sampler keeps more than the data and does not say how that is exchanged: Sampler.put"
            )
        drawn, given = jax.tree.map(jnp.shape, x), jax.tree.map(jnp.shape, known)
        if drawn != given:
            raise InputError(f"what is known must have the shape of the data that is drawn, {drawn}, not {given}")
        times = check_grid(times)
        stood, start = walk(len(times) - 1)
        points = times[::-1]
        t, s = points[start], points[start - 1]
        start = at_least_single(x)
        plans = rounded((undo(points[stood], t), sampler.plan(t, s), s), start)

        def body(before, step):
            number, (undo, plan, s) = step
            state = sampler.put(before, undo(_streams(keys, "undo", number), sampler.done(before)))
            state = sampler.step(rng.each(keys, number), state, plan, denoise)
            return as_before(sampler.put(state, hold(sampler.done(state), s, keys, number)), before), None

        start = sampler.init(hold(start, times[0], keys, 0) if first else start)
        return like(sampler.done(jax.lax.scan(body, start, (np.arange(1, len(t) + 1), plans))[0]), x)

    return run


def _mask_for(mask, shape):
    """Where `mask` says that data of `shape` is known, bool."""
    try:
        return jnp.broadcast_to(jnp.asarray(mask) > 0.5, shape)
    except ValueError:
        raise InputError(f"a mask of shape {jnp.shape(mask)} does not broadcast to what is known, {shape}") from None


def _streams(keys, name: str, number):
    return jax.vmap(lambda key: rng.stream(key, name, number))(keys)
