"""An experiment: everything that a run needs, in five records. A config's `build` makes one; the loops call it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np

from diffusion_jax.core.protocols import (
    AverageLikelihood,
    ClassifierFn,
    ClassLogProb,
    Clean,
    Condition,
    Gather,
    Hold,
    InitFn,
    Loss,
    MakeLikelihood,
    Preview,
    Report,
    Run,
    SampleCondition,
    SampleFn,
    SolveLikelihood,
    Source,
    Start,
    Summary,
    Tree,
    Whole,
)
from diffusion_jax.data import conditions
from diffusion_jax.data.views import View
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.diffusion.time_sampling import Times
from diffusion_jax.training.averages import Average
from diffusion_jax.training.optimizers import Optimizer

OPTIONS = {
    "steps": "--steps",
    "eta": "--eta",
    "guidance_scale": "--guidance",
    "guidance_rescale": "--rescale",
    "classifier": "--classifier",
}


class SampleRequest(NamedTuple):
    """The options of a sampler. A sampler refuses an option (`OPTIONS`) that it does not take.

    Attributes:
      batch: examples drawn at a time.
      steps: steps of the chain, or None for the sampler's default.
      eta: DDIM's noise, or None for the sampler's default.
      run: `samplers.solve`, or another walk of the same chain (`samplers.film` with its frames).
      guidance_scale: of the guidance, or None for the model's default.
      guidance_rescale: how much of the size of a guided prediction is set right, in [0, 1] (`guidance.rescaled`), or
        None for the model's default.
      classifier: None, or `(x_t [B, ...], t, label [B]) -> log p(label | x_t) [B]`, to guide a model without labels.
      report: None, or `report(share)`, called on the host while the chain runs, with the share in [0, 1] that is
        done.
      gather: `params -> params`, called for each evaluation of the network: gathers parameters that are spread over
        devices.
    """

    batch: int
    steps: int | None = None
    eta: float | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    classifier: ClassLogProb | None = None
    run: Run | None = None
    report: Report | None = None
    gather: Gather = lambda params: params


def in_turn(arrays: Mapping[str, np.ndarray], num: int) -> dict[str, np.ndarray]:
    """`num` rows of each array, its own again and again."""
    return {name: conditions.in_turn(x, num) for name, x in arrays.items()}


class Edit(NamedTuple):
    """How to draw samples of which something is known: a part of each, its luminance, a smaller picture.

    Attributes:
      takes: `shape of a sample -> name -> shape` of the arrays that it is given of each, None for any length;
        `InputError` where such samples cannot be drawn so.
      run: `walk -> (known -> run)`, from how the chain is walked (`SampleRequest.run`) and those arrays, name ->
        [B, ...], to a walk that keeps what is known; `InputError` for a walk that it does not have.
      enter: `(params, arrays) -> known`, from the arrays of samples to those of what the chain is of; traceable.
      tell: `(keys [B], known, cond) -> cond`, what the network is told of it, beside or in place of its condition, ()
        or (dictionary,); traceable.
      leave: `(samples [B, ...], arrays) -> samples`, what is done to the chain's samples; traceable.
      lay: `(arrays of the user's pictures, num) -> arrays [num, ...]`, those of each sample (NumPy's).
      at: `strength -> Edit`, the same with another strength in (0, 1]; None where it has none.
    """

    takes: Callable[[Any], Mapping[str, tuple[int | None, ...]]]
    run: Callable[[Run], Callable[[Mapping[str, jax.Array]], Run]]
    enter: Callable[[Tree, Mapping[str, jax.Array]], Mapping[str, jax.Array]] = lambda params, arrays: arrays
    tell: Callable[[jax.Array, Mapping[str, jax.Array], tuple], tuple] = lambda keys, known, cond: cond
    leave: Callable[[Tree, Mapping[str, jax.Array]], Tree] = lambda samples, arrays: samples
    lay: Callable[[Mapping[str, np.ndarray], int], Mapping[str, np.ndarray]] = in_turn
    at: Callable[[float], "Edit"] | None = None


class Look(NamedTuple):
    """A way to see what a model makes of examples: reconstructions, walks along its codes, its first filters.

    Attributes:
      draw: `(params, keys [N], x0 [N, ...]) -> pictures`, a tree of arrays, traceable.
      view: how they are saved and shown.
    """

    draw: Callable[[Tree, jax.Array, Tree], Tree]
    view: View


class Survey(NamedTuple):
    """What is measured of a whole set of examples at once, such as how many codes it uses.

    Attributes:
      each: `(params, keys [B], x0 [B, ...]) -> name -> array [B, ...]`, of each example, traceable.
      summary: `name -> array [N, ...]` of all of them, NumPy's `-> name -> number`.
    """

    each: Callable[[Tree, jax.Array, Tree], Mapping[str, jax.Array]]
    summary: Summary


class MakeSampler(Protocol):
    """`request -> sample_fn`; it raises `InputError` for an option that the sampler does not take."""

    def __call__(self, request: SampleRequest, /) -> SampleFn: ...


class Encoding(NamedTuple):
    """How texts become a condition inside of a program, where a model draws what they say.

    Attributes:
      ids: `(texts [N], texts that withhold them [N] or None) -> cond`, arrays of integers [N, ...].
      stage: `() -> stage` from these to entries of the condition (`diffusion.stages`).
      read: `() -> params` of the stage.
    """

    ids: Callable[[Sequence[str], Sequence[str] | None], Mapping[str, np.ndarray]]
    stage: Callable[[], Stage]
    read: Hold


# `() -> (params, which they are, for a person, sampler's name -> the folder of its samples)`.
Load: TypeAlias = Callable[[], tuple[Tree, str, Callable[[str], Path]]]


class Drawable(NamedTuple):
    """A trained model, to draw from.

    Attributes:
      samplers: name -> (`SampleRequest -> sample_fn(params, keys, *cond)`). The first is the default.
      sample_condition: makes the condition of samples (`Data.sample_condition`).
      view: how samples are saved and shown.
      load: `() -> (params, about, folder)`: reads the parameters from their files; `about` names them for a person,
        and `folder` gives the default folder of a sampler's samples, `name -> Path`.
      shape: of one sample, as of `Data`.
      edits, looks, told: as of `Sampling`.
      encoding: of texts; None where it is told none.
    """

    samplers: Mapping[str, MakeSampler]
    sample_condition: SampleCondition
    view: View
    load: Load
    shape: Any
    edits: Mapping[str, Edit] = MappingProxyType({})
    looks: Mapping[str, Look] = MappingProxyType({})
    told: Mapping[str, SampleCondition] = MappingProxyType({})
    encoding: Encoding | None = None


Export: TypeAlias = Callable[[Tree, Path], None]  # `(params, folder)`


class Data(NamedTuple):
    """The training data, and how examples become x0 and conditions.

    Attributes:
      source: `split -> source` of examples, "train" or "test" (`data.sources`); the first is trained on.
      example: name -> shape and dtype of the arrays that are used of an example: {"image": uint8 [H, W, C]}.
      clean: `batch -> x0 [B, ...]`, the data as the process takes it.
      shape: of one x0, as `process.prior` takes it.
      view: how samples are saved and shown (`data.views`).
      transforms: per-example transforms (`data.pipeline`).
      condition: `batch -> ()` or `batch -> (cond,)`: the condition of each example.
      sample_condition: `(num, given) -> ()` or `(cond,)`: the condition of `num` samples, arrays [num, ...], from
        the user's arrays by name, which may be none (`data.conditions`).
    """

    source: Source
    example: Mapping[str, jax.ShapeDtypeStruct]
    clean: Clean
    shape: Any
    view: View
    transforms: Sequence[Callable[[Any, np.random.Generator], Any]] = ()
    condition: Condition = lambda batch: ()
    sample_condition: SampleCondition = conditions.nothing


class Task(NamedTuple):
    """The parameters and the loss that trains them.

    Attributes:
      init: `key -> params`.
      loss: `(keys [b], params, batch, context) -> (loss per example [b], info)`, with `context` a `losses.Context`;
        batches come from `Data.source`.
      times: the law of the times t (`time_sampling`).
      start: `params -> params`: takes random parameters and returns those that a new run starts from. Called outside
        of any compiled function, so it may read files.
      held: `() -> nested dictionary of arrays` that the loss reads and nothing trains: a teacher, an encoder. Called
        once, when the run begins, outside of any compiled function; the result is saved in the work directory.
    """

    init: InitFn
    loss: Loss
    times: Times
    start: Start = lambda params: params
    held: Hold = dict


class Optimization(NamedTuple):
    """The optimiser, and the averages of the parameters.

    Attributes:
      optimizer: the optimiser, and the rates that are logged.
      ema_decay: of the moving average that samples are drawn with, in [0, 1).
      averages: further moving averages, name -> how one follows the parameters (`averages`). Those of a
        power-function profile are also saved at intervals, and mixed into others after training.
    """

    optimizer: Optimizer
    ema_decay: float
    averages: Mapping[str, Average] = MappingProxyType({})


class Sampling(NamedTuple):
    """The samplers; none for a model that draws nothing.

    Attributes:
      samplers: name -> (`SampleRequest -> sample_fn(params, keys, *cond)`). The first is the default.
      preview: `batch -> sample_fn(params, keys, *cond)`, which draws the previews during training.
      edits: name -> how to draw samples of which something is known; for every sampler of images.
      looks: name -> a way to see what the model makes of examples.
      told: a sampler's name -> what makes its condition, where that is not `Data.sample_condition`.
      whole: `(params, hold) -> params` that samplers, looks and measures take: those that are trained, and what they
        need of `hold()`, the arrays that the run holds (`Task.held`), such as the decoder of a prior's codes.
    """

    samplers: Mapping[str, MakeSampler] = MappingProxyType({})
    preview: Preview | None = None
    edits: Mapping[str, Edit] = MappingProxyType({})
    looks: Mapping[str, Look] = MappingProxyType({})
    told: Mapping[str, SampleCondition] = MappingProxyType({})
    whole: Whole = lambda params, hold: params


class Measures(NamedTuple):
    """The likelihoods and probabilities that can be computed of data.

    Attributes:
      likelihoods: name -> (`steps or None -> likelihood_fn(params, keys [B], x0, *cond)`), which returns a NamedTuple
        with `total` [B], bits an entry, and more (`likelihood.Bound`).
      solved: those of them that solve an equation to a tolerance: name -> (`tolerance -> likelihood_fn`).
      averaged: those of them that average over draws of a code: name -> (`draws -> likelihood_fn`).
      survey: what is measured of a whole set, of models that have codes; None otherwise.
      log_prob: of a classifier, `(params, x_t [B, ...], t, label [B]) -> log p(label | x_t) [B]`; None otherwise.
    """

    likelihoods: Mapping[str, MakeLikelihood] = MappingProxyType({})
    solved: Mapping[str, SolveLikelihood] = MappingProxyType({})
    averaged: Mapping[str, AverageLikelihood] = MappingProxyType({})
    survey: Survey | None = None
    log_prob: ClassifierFn | None = None


class Experiment(NamedTuple):
    """Five records, each read by who needs it: the loops read the first three, the commands the others.

    Attributes:
      data: the training data.
      task: the parameters and the loss.
      optimization: the optimiser and the averages.
      sampling: the samplers.
      measures: the likelihoods.
      method: the parts that it was composed of (`methods.compose.Method`); None where it was put together otherwise.
      export: `(params, folder)`, which writes them in a layout that others read; None where there is none.
    """

    data: Data
    task: Task
    optimization: Optimization
    sampling: Sampling = Sampling()
    measures: Measures = Measures()
    method: Any = None
    export: Export | None = None
