"""Editing images: from an image instead of from noise, and between two images."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import along
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Denoiser, EditFn, Guide, Run, Transform, Tree
from diffusion_jax.diffusion import guidance
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.samplers import Sampler, euler, invert, make_sample_fn, solve
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.timesteps import check_grid


def image_to_image(
    apply: Apply,
    parameterization: Parameterization,
    process: Process,
    sampler: Sampler,
    times: ArrayLike,
    start: float,
    transforms: Sequence[Transform] = (),
    guide: Guide = guidance.conditioned,
    run: Run = solve,
) -> EditFn:
    """SDEdit (Meng et al. 2022, algorithm 1): `edit_fn(params, rng, x0, *cond)`, as one pure function.

    x0 [B, ...] is corrupted to the time `start` and sampled from there. The higher `start`, the less is left of x0.

    Args:
      start: in (0, 1]; see `from_image`.
      others: as of `samplers.make_sample_fn`; `run` may be `inpainting.repaint(...)` to keep a part of x0 as it is.
    """
    below(times, start)

    def edit_fn(params, key, x0, *cond):
        sample_fn = make_sample_fn(
            apply,
            parameterization,
            process,
            sampler,
            times,
            batch=len(jax.tree.leaves(x0)[0]),
            shape=jax.tree.map(lambda x: x.shape[1:], x0),
            transforms=transforms,
            guide=guide,
            run=from_image(process, x0, start, run),
        )
        return sample_fn(params, key, *cond)

    return edit_fn


def from_image(process: Process, x0: Tree, start: float, run: Run = solve) -> Run:
    """A `run` for `samplers.make_sample_fn` that begins at x0, corrupted, and not at the prior's draw.

    It walks the part of the grid at or below `start`, and corrupts x0 to the highest time there. The noise is drawn
    with the key that the prior's draw would have had: with nothing left of x0 at start = 1, it is `run` itself.

    Args:
      process: corrupts x0.
      x0: data [B, ...].
      start: in (0, 1].
      run: the walk, `samplers.solve` or another.

    Raises:
      InputError: for a start outside (0, 1], and in the run for one below which the grid has no step.
    """
    _check_start(start)

    def walk(sampler: Sampler, times, denoise: Denoiser, x, keys):
        del x
        times = below(times, start)
        corrupt = jax.vmap(lambda key, x0: process.corrupt(key, x0, times[0])[0])
        return run(sampler, times, denoise, corrupt(rng.each(keys, 0), x0), keys)

    return walk


def below(times: ArrayLike, start: float) -> np.ndarray:
    """The part of the grid at or below `start`, float64 [n + 1]; `InputError` if that is no step."""
    _check_start(start)
    times = check_grid(times)
    rest = times[times <= start + 1e-9]
    if len(rest) < 2:
        raise InputError(f"the grid has no step at or below start = {start}: take a finer grid or a later start")
    return rest


def slerp(first: jax.Array, second: jax.Array, share: Any) -> jax.Array:
    """Spherical interpolation of two noises (DDIM, Song et al. 2021, equation 67): first at share 0, second at 1.

    Independent normal noises stay of unit variance on the way, which linear interpolation shrinks to a half. Where
    the two point the same way it is linear.

    Args:
      first, second: [B, ...], of one shape; the angle is taken over all entries of an example.
      share: a number or [B], in [0, 1].

    Raises:
      InputError: for two shapes, or a share of another shape.
    """
    if first.shape != second.shape:
        raise InputError(f"the noises must have one shape, not {first.shape} and {second.shape}")
    share = along(share, first.shape)
    one, other = first / _norm(first), second / _norm(second)
    # Unlike the arc cosine of their product this is exact for small angles.
    angle = 2 * jnp.arctan2(_norm(one - other), _norm(one + other))
    sine = jnp.sin(angle)
    apart = sine > 1e-6

    def weight(share):
        return jnp.where(apart, jnp.sin(share * angle) / jnp.where(apart, sine, 1.0), share)

    return weight(1 - share) * first + weight(share) * second


def interpolate(
    schedule: Schedule,
    times: ArrayLike,
    denoise: Denoiser,
    first: jax.Array,
    second: jax.Array,
    share: Any,
    iterations: int = 1,
) -> jax.Array:
    """Images [B, ...] between two: DDIM's inversion of both (`samplers.invert`), `slerp`, and DDIM down again.

    Deterministic. At share 0 it reconstructs `first`, as well as the inversion with its `iterations` does.

    Args:
      schedule: the process's, which is Gaussian.
      times: the grid, [N + 1]; as `invert` takes it.
      denoise: `(x_t [B, ...], t) -> Estimate`.
      first, second, share: as of `slerp`; images at times[-1].
    """
    unused = jax.random.split(jax.random.key(0), len(first))  # DDIM draws nothing
    walk = between(schedule, first, second, share, iterations=iterations)
    return walk(euler(schedule), times, denoise, first, unused)


def between(
    schedule: Schedule, first: jax.Array, second: jax.Array, share: Any, run: Run = solve, iterations: int = 1
) -> Run:
    """A `run` for `samplers.make_sample_fn` that gives `interpolate`; it walks by DDIM, whatever the sampler.

    Arguments as of `interpolate`; `run` is the walk down, `samplers.solve` or another.
    """

    def walk(sampler: Sampler, times, denoise: Denoiser, x, keys):
        del sampler, x
        ends = jax.vmap(lambda x: invert(schedule, times, denoise, x, iterations))(jnp.stack([first, second]))
        return run(euler(schedule), times, denoise, slerp(ends[0], ends[1], share), keys)

    return walk


def _check_start(start: float):
    if not 0 < start <= 1:
        raise InputError(f"an edit starts at a time in (0, 1], not {start}")


def _norm(x):
    return jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))
