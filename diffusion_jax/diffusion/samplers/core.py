"""What every sampler is, and the one loop that runs them all.

A sampler sees one step from t to s, never the grid. The whole reverse chain is a single `lax.scan`: its
compile time and memory do not depend on the number of steps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import at_least_single, is_float, like
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import (
    Apply,
    Body,
    Denoiser,
    Done,
    Guide,
    Init,
    Plan,
    Put,
    Report,
    Run,
    SampleFn,
    Step,
    Stuck,
    Transform,
    Tree,
)
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.parameterizations import Parameterization, denoiser
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.timesteps import check_grid


def never(state: Tree) -> bool:
    """Of a sampler that always gets on."""
    return False


def alone(state: Tree, x: Tree) -> Tree:
    """`Sampler.put` where the state is the data."""
    return x


def within(state: Any, x: Tree) -> Any:
    """`Sampler.put` where the data is the state's field "x"."""
    return state._replace(x=x)


class Sampler(NamedTuple):
    """One way to walk from noise to data.

    Attributes:
      plan: `(t [N], s [N]) -> pytree`, whatever the steps need to know of their intervals, computed on the whole
        grid, in NumPy's float64, before the loop; every array leads with the axis of steps.
      init: `x_1 -> state`.
      step: `(keys [B], state, plan, denoise) -> state`, one step, with the plan's slice for it.
      done: `state -> x`, the data [B, ...] in a state.
      stuck: `state -> bool`, [B] or for all: whose chain the sampler gave up itself. Its data is NaN from then on.
      put: `(state, x) -> state`, with x as its data, which was changed on the way, and what else it remembers.

    x is an array or, for a `processes.product`, a dictionary of arrays.
    """

    plan: Plan
    init: Init
    step: Step
    done: Done
    stuck: Stuck = never
    put: Put = alone


def reporting(sampler: Sampler, report: Report, every: int = 10) -> Sampler:
    """The same sampler; `report(share)` is called on the host after each `every` of its steps and the last.

    share, in (0, 1], is how much of the chain is done. With several devices each of them calls.
    """

    def plan(t, s):
        number = np.arange(1, len(t) + 1)
        return number / len(t), (number % every == 0) | (number == len(t)), sampler.plan(t, s)

    def step(keys, state, plan, denoise):
        share, due, inner = plan
        state = sampler.step(keys, state, inner, denoise)
        jax.lax.cond(due, lambda: jax.debug.callback(report, share), lambda: None)
        return state

    return sampler._replace(plan=plan, step=step)


def solve(sampler: Sampler, times: ArrayLike, denoise: Denoiser, x: Tree, keys: jax.Array) -> Tree:
    """Walk `x` [B, ...] from times[0] down to times[-1]; the data [B, ...] there, in the dtype of `x`.

    Half precision is walked in float32, for a step may be shorter than its spacing.

    Args:
      sampler: how to step.
      times: a falling grid in [0, 1], [N + 1] (`timesteps`). `InputError` if it does not fall.
      denoise: `(x_t [B, ...], t) -> Estimate`.
      x: the data at times[0].
      keys: one key an example, [B]; step n uses `fold_in(key, n + 1)`.
    """
    start = at_least_single(x)
    state, _ = jax.lax.scan(body_of(sampler, denoise, keys), sampler.init(start), steps_of(sampler, times, start))
    return like(sampler.done(state), x)


class Film(NamedTuple):
    """A chain's end, and the way there.

    Attributes:
      x: data [B, ...].
      pictures: data [F + 1, B, ...], along the chain.
    """

    x: Tree
    pictures: Tree


def film(sampler: Sampler, times: np.ndarray, denoise: Denoiser, x: Tree, keys: jax.Array, frames: int) -> Film:
    """`solve`, and F = min(frames, N) pictures of it.

    The first picture is `x`; the others are evenly spaced along the N steps, and the last is the result. Only
    they are held in memory, not the steps between.
    """
    start = at_least_single(x)
    steps = steps_of(sampler, times, start)
    num = len(times) - 1
    if frames < 1:
        raise InputError(f"a film has at least 1 frame, not {frames}")
    frames = min(frames, num)
    walk = body_of(sampler, denoise, keys)
    # Each step writes into the frame of the interval it lies in: what stays there is the interval's end.
    slot = np.ceil(np.arange(1, num + 1) * frames / num).astype(np.int32)

    def body(carry, step):
        state, pictures = carry
        state, _ = walk(state, step[1])
        pictures = jax.tree.map(lambda film, now: film.at[step[0]].set(now), pictures, sampler.done(state))
        return (state, pictures), None

    pictures = jax.tree.map(lambda x: jnp.zeros((frames + 1, *x.shape), x.dtype).at[0].set(x), start)
    (state, pictures), _ = jax.lax.scan(body, (sampler.init(start), pictures), (slot, steps))
    return Film(like(sampler.done(state), x), like(pictures, x))


def steps_of(sampler: Sampler, times: ArrayLike, x: Tree) -> tuple[np.ndarray, Tree]:
    """What `lax.scan` walks over: numbers from 1 and the plan of each step, for data like `x`."""
    times = check_grid(times)
    return np.arange(1, len(times)), rounded(sampler.plan(times[:-1], times[1:]), x)


def rounded(plan: Tree, x: Tree) -> Tree:
    """A plan's float64 coefficients in the precision in which `x` is walked."""
    dtype = jnp.result_type(*(leaf for leaf in jax.tree.leaves(x) if is_float(leaf)), jnp.float32)
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype) if is_float(leaf) else leaf, plan)


def body_of(sampler: Sampler, denoise: Denoiser, keys: jax.Array) -> Body:
    """The body of that `lax.scan`: one step."""

    def body(state, step):
        number, plan = step
        return as_before(sampler.step(rng.each(keys, number), state, plan, denoise), state), None

    return body


def as_before(state: Tree, before: Tree) -> Tree:
    """The state after a step, in the dtypes of the one before; `InputError` if its shapes are not the same."""
    shapes, wanted = (jax.tree.map(jnp.shape, tree) for tree in (state, before))
    if shapes != wanted:
        raise InputError(
            f"a step makes a state of shapes {shapes} of one of {wanted}: the network must answer as many channels "
            "as the data has"
        )
    return like(state, before)


def make_sample_fn(
    apply: Apply,
    parameterization: Parameterization,
    process: Process,
    sampler: Sampler,
    times: ArrayLike,
    batch: int,
    shape: Any,
    transforms: Sequence[Transform] = (),
    run: Run = solve,
    guide: Guide = conditioned,
) -> SampleFn:
    """`sample_fn(params, rng, *cond)`: data [B, ...] drawn by the whole reverse chain, as one pure function.

    It may be compiled, mapped, differentiated, or put inside a larger program.

    Args:
      apply: `(params, input [B, ...], time [B], *cond) -> output`, the network.
      parameterization: what the network's input and output mean.
      process: gives the prior at times[0], where the chain starts.
      sampler: how to step.
      times: the grid, [N + 1], falling (`timesteps`).
      batch: B, how many to draw.
      shape: of one example, as `process.prior` takes it: (H, W, C), or a dictionary of shapes.
      transforms: `Denoiser -> Denoiser`, applied from first to last (clipping, variances, guidance).
      run: `solve`, or `functools.partial(film, frames=F)` for the pictures on the way as well.
      guide: `(conditional denoiser, *cond) -> Denoiser`: what is made of the condition (`guidance.conditioned`,
        `guidance.classifier_free`).

    Returns:
      `sample_fn(params, rng, *cond)`, where `rng` is one key. Example i uses `fold_in(rng, i)` and nothing else: it
      does not change with B. `rng` may also be keys [B], one an example, in place of that. `cond` is nothing for
      a network that is told nothing, or else a dictionary of arrays [B, ...] (`models.blocks.conditioning`).

    Raises:
      InputError: for a grid that does not fall, one that starts where the process does not know its prior, or one
        with a time at which the network's output says nothing of x0 (eps where alpha = 0).
    """
    times = check_grid(times)
    parameterization.check(times[:-1])
    jax.eval_shape(lambda key: process.prior(key, shape, times[0]), rng.root(0))  # `InputError` if it has none

    def sample(params, key, *cond):
        keys = rng.of_batch(key, batch)
        denoise = guide(denoiser(lambda *inputs: apply(params, *inputs), parameterization), *cond)
        for transform in transforms:
            denoise = transform(denoise)
        x = jax.vmap(lambda key: process.prior(key, shape, times[0]))(rng.each(keys, 0))
        return run(sampler, times, denoise, x, keys)

    return on_any_mesh(sample)
