"""Models of several stages, to draw from: a chain, which is drawn as a person asks, and stages around it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import Hold, SampleFn, Tree
from diffusion_jax.data import views
from diffusion_jax.diffusion import samplers, stages
from diffusion_jax.diffusion.stages import Shape, Stage
from diffusion_jax.methods.compose import unguided
from diffusion_jax.pipelines import prompts, texts
from diffusion_jax.pipelines.index import Index
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pipelines.told import Told, given
from diffusion_jax.pretrained.published import Network
from diffusion_jax.training.experiment import OPTIONS, Drawable, MakeSampler, SampleRequest

# `request -> stage`: a chain beside the one that is asked for, or a network, on as many examples.
StageOf: TypeAlias = Callable[[SampleRequest], Stage]

# Of stages beside the one that is drawn as a person asks: stage -> option -> value.
Asked: TypeAlias = Mapping[str, Mapping[str, Any]]


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
        make, options = chosen(self.name, self.samplers, options)

        def of(request: SampleRequest) -> Stage:
            return self.stage(make(SampleRequest(request.batch, gather=request.gather, **options)))

        return of


def chosen(
    stage: str, samplers: Mapping[str, MakeSampler], options: Mapping[str, Any]
) -> tuple[MakeSampler, dict[str, Any]]:
    """The sampler that a person asks of a stage, its first by default, and the other options.

    Args:
      stage: its name.
      samplers: its samplers.
      options: "sampler" and those of a `SampleRequest`.

    Raises:
      InputError: there is no such option or sampler, or the sampler does not take it.
    """
    options = dict(options)
    name = options.pop("sampler", next(iter(samplers)))
    if name not in samplers:
        raise InputError(f"the stage {stage} has no sampler {name}; choose from {', '.join(samplers)}")
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise InputError(f"the stage {stage} takes no {unknown[0]}; leave it out")
    samplers[name](SampleRequest(1, **options))  # refused here, before anything is read
    return samplers[name], options


def gathered(stage: Stage) -> StageOf:
    """A stage whose parameters may be spread over devices."""

    def of(request: SampleRequest) -> Stage:
        return stage._replace(run=lambda params, keys, cond: stage.run(request.gather(params), keys, cond))

    return of


def always(stage: Stage) -> StageOf:
    """A stage without parameters, whatever is asked."""
    return lambda request: stage


def around(
    before: Sequence[StageOf], main: Link, after: Sequence[StageOf], known: Mapping[str, Shape], result: str
) -> dict[str, MakeSampler]:
    """The samplers of `main` as those of a whole pipeline, of `{stage: its own params}`.

    A film is of the main chain; its frames are brought to the size of what the pipeline draws.

    Raises:
      InputError: the stages do not fit together (`stages.check`).
    """
    _check(before, main, after, known, result)
    return {
        name: _whole(before, main._replace(samplers={name: make}), after, result)
        for name, make in main.samplers.items()
    }


def _check(before, main, after, known, result) -> None:
    one = SampleRequest(1)
    whole = [*(of(one) for of in before), main.stage(lambda *told: None), *(of(one) for of in after)]
    stages.check_gives(whole, known, result)


def _whole(before, main: Link, after, result: str) -> MakeSampler:
    (make,) = main.samplers.values()

    def made(request: SampleRequest) -> SampleFn:
        draw, first, last = make(request), [of(request) for of in before], [of(request) for of in after]

        def sample(params, key, cond):
            keys = rng.of_batch(key, request.batch)
            known = stages.run(first, params, keys, cond)

            def end(x: Tree) -> Tree:
                return stages.run(last, params, keys, {**known, main.into: x})[result]

            def frames(pictures: Tree, samples: Tree) -> Tree:
                return jax.image.resize(pictures, (len(pictures), *samples.shape), "nearest")

            drawn = stages.one(main.stage(draw), params[main.name], keys, known)[main.into]
            return samplers.ended(drawn, end, frames)

        return on_any_mesh(sample)

    return made


def keyed(name: str, make: MakeSampler) -> MakeSampler:
    """A sampler as that of the stage `name` of a pipeline: it draws by the stage's keys (`stages.keys_of`)."""

    def made(request: SampleRequest) -> SampleFn:
        draw = make(request)
        return lambda params, key, *cond: draw(params, stages.keys_of(name, rng.of_batch(key, request.batch)), *cond)

    return made


# ---- Published pipelines.


def heard(network: Network) -> dict[str, Shape]:
    """What a network is told, name -> shape of one example."""
    return {name: tuple(x.shape[1:]) for name, x in network.example[2].items()}


def with_nulls(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Entries, and under "null_NAME" what withholds each."""
    return {**shapes, **stages.nulls(shapes)}


def texts_of(network: Network) -> dict[str, Shape]:
    """The entries that an encoded text is for a network that reads "tokens", of any length."""
    return with_nulls({"tokens": (None, network.example[2]["tokens"].shape[-1])})


def check_known(asked: Asked, *names: str) -> None:
    """`InputError` where a person asks something of a stage that is not among `names`."""
    for name in asked:
        if name not in names:
            remedy = f"of use are {', '.join(names)}" if names else "it is one chain: give --steps and its like"
            raise InputError(f"--stage {name}: this model has no such stage beside its main one; {remedy}")


def drawable(
    whole: Index,
    reading: Reading,
    text: Mapping[str, Shape],
    samplers: Mapping[str, MakeSampler],
    read: Mapping[str, Hold],
    shape: Shape,
    usual: Mapping[str, np.ndarray] = MappingProxyType({}),
    further: Mapping[str, Shape] = MappingProxyType({}),
) -> Drawable:
    """A pipeline of pictures that is told texts, to draw from.

    Args:
      whole: its folder.
      reading: how the weights are read.
      text: the entries that are made of texts.
      samplers: of the whole (`around`).
      read: stage -> `() -> params`.
      shape: of a picture.
      usual: other entries that it is told, where nobody says them, [1, ...].
      further: other entries, which must be said.
    """
    missing = f"this model draws what a text says: --prompt TEXT, or --condition FILE.npz with {', '.join(text)}"

    def load():
        params = {name: hold() for name, hold in read.items()}
        kept = Path("samples") / Path(whole.name).name
        return params, f"published {whole.kind} of {whole.name}", lambda sampler: kept / sampler

    encoders, view = texts.of_folder(whole, reading), views.pictures()
    assert encoders is not None
    whole.tell_left_out()
    condition = given(missing, text, {**text, **further, **{name: x.shape[1:] for name, x in usual.items()}}, usual)
    told = Told(condition, unguided, view, text)
    encoding = prompts.encoding(encoders, told)
    return Drawable(samplers, prompts.telling(encoders, told), view, load, shape, encoding=encoding)
