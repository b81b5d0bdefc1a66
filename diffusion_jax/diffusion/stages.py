"""Pipelines as folds of stages: encoders of texts, a prior, chains, a super-resolution, a decoder.

A stage takes entries of the dictionary that networks are told (`models.blocks.conditioning`), and adds others or puts
new ones in their place. What it takes and gives is checked when the stages are put together, before anything is read
or compiled. The keys of a stage are folded from each example's key and the stage's name: an image depends neither on
the batch, nor on the devices, nor on which stages ran in one process.

sample_fn = pipeline([encode, prior, decoder], given={"ids": (77,)}, result="image")
images = sample_fn({"encode": ..., "prior": ..., "decoder": ...}, rng, {"ids": ids})
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import EncodeEntries, Hold, OfCond, RunStage, SampleFn, Score, Tree

# Of one example of an entry: its sizes, None for any.
Shape: TypeAlias = tuple[int | None, ...]
NULL = "null_"  # before the name of an entry: what withholds it


class Stage(NamedTuple):
    """One step of a pipeline.

    Attributes:
      name: of the stage in its pipeline: that of its parameters, and of its random stream.
      run: `(params, keys [B], cond) -> entries`; cond has the entries of `needs` and no others.
      needs: name -> shape of one example, None for a size that may be any.
      gives: the same, of what `run` returns.
    """

    name: str
    run: RunStage
    needs: Mapping[str, Shape]
    gives: Mapping[str, Shape]


def chain(name: str, sample_fn: SampleFn, needs: Mapping[str, Shape], into: str, shape: Shape) -> Stage:
    """A chain, whose samples of `shape` become the entry `into`; it is told what it needs (`samplers`)."""

    def run(params, keys, cond):
        return {into: sample_fn(params, keys, *((cond,) if cond else ()))}

    return Stage(name, run, needs, {into: shape})


def encode(name: str, network: EncodeEntries, needs: Mapping[str, Shape], gives: Mapping[str, Shape]) -> Stage:
    """A network that draws nothing: an encoder of texts, a decoder of latents."""
    return Stage(name, lambda params, keys, cond: network(params, cond), needs, gives)


def arrays(name: str, f: OfCond, needs: Mapping[str, Shape], gives: Mapping[str, Shape]) -> Stage:
    """Fixed mathematics between networks. It takes no parameters and draws nothing."""
    return Stage(name, lambda params, keys, cond: f(cond), needs, gives)


def best_of(num: int, score: Score, stage: Stage, by: Mapping[str, Shape]) -> Stage:
    """`stage`, drawn `num` times, each with keys of its own; of each example the draw with the largest score stays.

    Args:
      num: draws, one after the other.
      score: `cond -> [B]`, of the entries of `by` and of those that the stage gives.
      stage: what is drawn. All that it gives is [B, ...] arrays.
      by: further entries that the score needs.
    """

    def run(params, keys, cond):
        told = {name: cond[name] for name in stage.needs}

        def draw(number):
            found = dict(stage.run(params, rng.each(keys, number), told))
            return found, score({**{name: cond[name] for name in by}, **found})

        draws, scores = jax.lax.map(draw, jnp.arange(num))
        best, examples = jnp.argmax(scores, axis=0), jnp.arange(len(keys))
        return jax.tree.map(lambda x: x[best, examples], draws)

    return stage._replace(run=run, needs={**stage.needs, **by})


def nulls(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Entries, or their shapes, as what withholds others: under "null_NAME"."""
    return {NULL + name: entry for name, entry in entries.items()}


def check(stages: Sequence[Stage], given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of all entries after `stages`, of those that are `given`.

    Raises:
      InputError: a stage needs an entry that is not there by then, or one of another shape; or two have one name.
    """
    known = dict(given)
    for number, stage in enumerate(stages):
        if any(stage.name == other.name for other in stages[:number]):
            raise InputError(f"two stages are named {stage.name!r}; their parameters and keys would be the same")
        for name, shape in stage.needs.items():
            if name not in known:
                later = next((other.name for other in stages[number + 1 :] if name in other.gives), None)
                remedy = f"the stage {later!r} gives it later; put that first" if later else "nothing before gives it"
                raise InputError(f"the stage {stage.name!r} needs {name!r}, and {remedy}")
            if not _fits(known[name], shape):
                shapes = f"of shape {_shown(shape)}, and is given {_shown(known[name])}"
                raise InputError(f"the stage {stage.name!r} needs {name!r} {shapes}")
        known |= stage.gives
    return known


def check_gives(stages: Sequence[Stage], given: Mapping[str, Shape], result: str) -> None:
    """Raise `InputError` where stages do not fit together (`check`), or none gives `result`."""
    known = check(stages, given)
    if result not in known:
        raise InputError(f"no stage gives {result!r}, only {', '.join(sorted(known))}")


def pipeline(stages: Sequence[Stage], given: Mapping[str, Shape], result: str) -> SampleFn:
    """`sample_fn(params, rng, cond)`: the entry `result` after all stages, as one pure function.

    Args:
      stages: from first to last.
      given: the entries that cond will have, name -> shape of one example.
      result: the entry that is returned.

    Returns:
      `sample_fn(params, rng, cond)`: params is {name of a stage: its own}, of those that have some; `rng` is one key,
      of which example i uses `fold_in(rng, i)`, or keys [B]; cond is a dictionary of arrays [B, ...].

    Raises:
      InputError: as of `check_gives`.
    """
    check_gives(stages, given, result)

    def sample_fn(params, key, cond):
        return run(stages, params, rng.of_batch(key, _batch(cond)), cond)[result]

    return on_any_mesh(sample_fn)


def run(stages: Sequence[Stage], params: Mapping[str, Any], keys: jax.Array, cond: Mapping[str, Tree]) -> dict:
    """All entries after `stages`, of checked ones; traceable. Arguments as of `pipeline`'s function, keys [B]."""
    known = dict(cond)
    for stage in stages:
        known |= one(stage, params.get(stage.name, {}), keys, known)
    return known


def one(stage: Stage, params: Tree, keys: jax.Array, cond: Mapping[str, Tree]) -> dict[str, Tree]:
    """What one stage makes of `cond`, which may have more entries than it needs; `keys` [B] are the examples'."""
    found = dict(stage.run(params, keys_of(stage.name, keys), {name: cond[name] for name in stage.needs}))
    if found.keys() != stage.gives.keys():
        raise InputError(
            f"the stage {stage.name!r} gave {sorted(found)}, and says that it gives {sorted(stage.gives)}"
        )
    return found


def keys_of(name: str, keys: jax.Array) -> jax.Array:
    """The keys [B] of the stage `name`, of those of the examples."""
    return jax.vmap(lambda key: rng.stream(key, name))(keys)


def apart(stages: Sequence[Stage], read: Mapping[str, Hold], keys: jax.Array, cond: Mapping[str, Tree]) -> dict:
    """`run`, one program a stage: the parameters of each are read when its turn comes, and let go after it.

    For pipelines whose networks together fill more than the memory. The entries are those of one program but for
    rounding.

    Args:
      stages: checked ones (`check`).
      read: name of a stage -> `() -> params`, of those that have some.
      keys: of the examples, [B].
      cond: arrays [B, ...].
    """
    known = dict(cond)
    for stage in stages:
        params = read[stage.name]() if stage.name in read else {}
        told = {name: known[name] for name in stage.needs}
        known |= jax.block_until_ready(jax.jit(lambda *parts, stage=stage: one(stage, *parts))(params, keys, told))
        del params
    return known


def _batch(cond: Mapping[str, Tree]) -> int:
    leaves = jax.tree.leaves(cond)
    if not leaves:
        raise InputError("a pipeline is told something of each example; its condition is empty")
    return len(leaves[0])


def _fits(given: Shape, needed: Shape) -> bool:
    return len(given) == len(needed) and all(
        None in pair or pair[0] == pair[1] for pair in zip(given, needed, strict=True)
    )


def _shown(shape: Shape) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
