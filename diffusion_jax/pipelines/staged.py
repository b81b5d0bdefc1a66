"""Models of several stages, to draw from: a chain, which is drawn as a person asks, and stages around it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import EncodeEntries, SampleFn, Tree
from diffusion_jax.diffusion import samplers, stages
from diffusion_jax.diffusion.stages import Shape, Stage
from diffusion_jax.training.experiment import MakeSampler, SampleRequest

# `request -> stage`: a chain beside the one that is asked for, or a network, on as many examples.
StageOf: TypeAlias = Callable[[SampleRequest], Stage]


class Link(NamedTuple):
    """A chain of a pipeline.

    Attributes:
      name: of its stage.
      samplers: name -> (`SampleRequest -> sample_fn`); the first is the default.
      needs: the entries that it is told, name -> shape of one example.
      into: the entry that its samples become.
      shape: of one sample.
    """

    name: str
    samplers: Mapping[str, MakeSampler]
    needs: Mapping[str, Shape]
    into: str
    shape: Shape

    def stage(self, draw: SampleFn) -> Stage:
        """The chain as a stage, drawn by `draw`."""
        return stages.chain(self.name, draw, self.needs, self.into, self.shape)

    def asked(self, options: Mapping[str, Any]) -> StageOf:
        """The chain as one beside another.

        Args:
          options: "sampler" and those of a `SampleRequest`, of this chain alone.

        Raises:
          InputError: there is no such option or sampler, or the sampler does not take it.
        """
        options = dict(options)
        name = options.pop("sampler", next(iter(self.samplers)))
        if name not in self.samplers:
            raise InputError(f"the stage {self.name} has no sampler {name}; choose from {', '.join(self.samplers)}")
        self.samplers[name](SampleRequest(1, **options))  # refused here, before anything is read

        def of(request: SampleRequest) -> Stage:
            return self.stage(self.samplers[name](SampleRequest(request.batch, gather=request.gather, **options)))

        return of


def network(name: str, say: EncodeEntries, needs: Mapping[str, Shape], gives: Mapping[str, Shape]) -> StageOf:
    """A network that draws nothing, as a stage; its parameters may be spread over devices."""

    def of(request: SampleRequest) -> Stage:
        return stages.encode(name, lambda params, cond: say(request.gather(params), cond), needs, gives)

    return of


def always(stage: Stage) -> StageOf:
    """A stage without parameters, whatever is asked."""
    return lambda request: stage


def around(
    before: Sequence[StageOf], main: Link, after: Sequence[StageOf], given: Mapping[str, Shape], result: str
) -> dict[str, MakeSampler]:
    """The samplers of `main` as those of a whole pipeline, of `{stage: its own params}`.

    A film is of the main chain; its frames are brought to the size of what the pipeline draws.

    Raises:
      InputError: the stages do not fit together (`stages.check`).
    """
    _check(before, main, after, given, result)
    return {
        name: _whole(before, main._replace(samplers={name: make}), after, result)
        for name, make in main.samplers.items()
    }


def _check(before, main, after, given, result) -> None:
    one = SampleRequest(1)
    whole = [*(of(one) for of in before), main.stage(lambda *told: None), *(of(one) for of in after)]
    if result not in stages.check(whole, given):
        raise InputError(f"no stage gives {result!r}")


def _whole(before, main: Link, after, result: str) -> MakeSampler:
    (make,) = main.samplers.values()

    def made(request: SampleRequest) -> SampleFn:
        draw, first, last = make(request), [of(request) for of in before], [of(request) for of in after]

        def sample(params, key, cond):
            keys = rng.of_batch(key, request.batch)
            known = stages.run(first, params, keys, cond)

            def end(x: Tree) -> Tree:
                return stages.run(last, params, keys, {**known, main.into: x})[result]

            match stages.one(main.stage(draw), params[main.name], keys, known)[main.into]:
                case samplers.Film(x, pictures):
                    whole = end(x)
                    frames = jax.image.resize(pictures, (len(pictures), *whole.shape), "nearest")
                    return samplers.Film(whole, frames)
                case samplers.Break() as where:
                    return where
                case x:
                    return end(x)

        return on_any_mesh(sample)

    return made


def keyed(name: str, make: MakeSampler) -> MakeSampler:
    """A sampler as that of the stage `name` of a pipeline: it draws by the stage's keys (`stages.keys_of`)."""

    def made(request: SampleRequest) -> SampleFn:
        draw = make(request)
        return lambda params, key, *cond: draw(params, stages.keys_of(name, rng.of_batch(key, request.batch)), *cond)

    return made
