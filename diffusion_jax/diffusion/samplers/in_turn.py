"""One chain whose steps several networks make, each its share of the noise levels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import at_least_single, like
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import Apply, Guide, SampleFn, Transform
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.parameterizations import Parameterization, denoiser
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.samplers.core import Sampler, body_of, steps_of
from diffusion_jax.diffusion.timesteps import check_grid


class Turn(NamedTuple):
    """A network and its share of a chain. Attributes, but for `steps`, as the arguments of `make_sample_fn`.

    Attributes:
      apply: `(params, input, time, *cond) -> output`.
      parameterization: what its input and output mean.
      steps: how many of the chain's steps it makes, at least 1.
      transforms: of its denoiser.
      guide: what it makes of the condition.
    """

    apply: Apply
    parameterization: Parameterization
    steps: int
    transforms: Sequence[Transform] = ()
    guide: Guide = conditioned


def in_turn(
    turns: Mapping[str, Turn], process: Process, sampler: Sampler, times: ArrayLike, batch: int, shape: Sequence[int]
) -> SampleFn:
    """`make_sample_fn` of several networks, from noise to data: Karlo's last step of super-resolution has its own.

    Plans, keys and the sampler's state are those of the whole chain: of one network it is the chain of
    `make_sample_fn`, however it is shared out.

    Args:
      turns: name -> `Turn`; the first begins.
      process, sampler, times, batch, shape: as of `make_sample_fn`.

    Returns:
      `sample_fn(params, rng, *cond)`, as that of `make_sample_fn`, of {name: its params}.

    Raises:
      InputError: the turns' steps do not add up to those of the grid, or as of `make_sample_fn`.
    """
    times, shares = check_grid(times), {name: turn.steps for name, turn in turns.items()}
    if min(shares.values(), default=0) < 1 or sum(shares.values()) != len(times) - 1:
        raise InputError(f"turns of {shares} steps do not make up a chain of {len(times) - 1}, each at least 1")
    spans, start = {}, 0
    for name, turn in turns.items():
        spans[name] = slice(start, start + turn.steps)
        turn.parameterization.check(times[spans[name]])
        start += turn.steps
    jax.eval_shape(lambda key: process.prior(key, shape, times[0]), rng.root(0))  # `InputError` if it has none

    def sample(params, key, *cond):
        keys = rng.of_batch(key, batch)
        x = jax.vmap(lambda key: process.prior(key, shape, times[0]))(rng.each(keys, 0))
        first = at_least_single(x)
        state, steps = sampler.init(first), steps_of(sampler, times, first)
        for name, turn in turns.items():
            denoise = turn.guide(_of(turn, params[name]), *cond)
            for transform in turn.transforms:
                denoise = transform(denoise)
            part = jax.tree.map(lambda leaf, span=spans[name]: leaf[span], steps)
            state, _ = jax.lax.scan(body_of(sampler, denoise, keys), state, part)
        return like(sampler.done(state), x)

    return on_any_mesh(sample)


def _of(turn: Turn, params):
    return denoiser(lambda *inputs: turn.apply(params, *inputs), turn.parameterization)
