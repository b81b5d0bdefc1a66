"""An experiment: everything that a run needs, composed. A config's `build` makes one; the loops only call it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import optax

from diffusion_jax.core.protocols import Loss, Report, Run, SampleCondition, Source
from diffusion_jax.data import conditions
from diffusion_jax.data.views import View
from diffusion_jax.diffusion.time_sampling import Times
from diffusion_jax.training.averages import Average


class SampleRequest(NamedTuple):
    """What a person asks of a sampler.

    Attributes:
      batch: examples drawn at a time.
      steps: steps of the chain, or None for the sampler's own default.
      eta: DDIM's noise, or None where the sampler has none or for its default.
      run: `samplers.solve`, or another walk of the same chain (`samplers.film` with its frames).
      guidance: scale of the guidance, or None for the sampler's own default.
      classifier: None, or `(x_t [B, ...], t, label [B]) -> log p(label | x_t) [B]`, to guide a model without labels.
      report: None, or `report(share)`, called on the host now and then while the chain runs, with how much is done.
      gather: `params -> params`, done anew for each call of the network: gathers what is spread over devices.
    """

    batch: int
    steps: int | None = None
    eta: float | None = None
    guidance: float | None = None
    classifier: Callable | None = None
    run: Run | None = None
    report: Report | None = None
    gather: Callable = lambda params: params


class Drawable(NamedTuple):
    """A trained model, to draw from.

    Attributes:
      samplers: name -> (`SampleRequest -> sample_fn(params, keys, *cond)`). The first is the default.
      sample_condition: what samples are told (`Experiment.sample_condition`).
      view: how they are kept and shown.
      load: `() -> (params, about, folder)`: reads the parameters from their files, says for a person which they are,
        and where the samples of a sampler go by default, `name -> Path`.
    """

    samplers: Mapping[str, Callable]
    sample_condition: SampleCondition
    view: View
    load: Callable


class Experiment(NamedTuple):
    """The parts of one experiment.

    Attributes:
      example: name -> shape and dtype, of what is used of an example of the data: {"image": uint8 [H, W, C]}.
      init: `key -> params`.
      loss: `(keys [b], params, batch, context) -> (loss per example [b], info)`, with `context` a `losses.Context`;
        batches come from `source`.
      times: how the times t are drawn (`time_sampling`).
      optimizer: an optax transformation.
      ema_decay: of the moving average of the parameters.
      source: `split -> random-access source` (`data.sources`) of "train" or "test"; the first is trained on.
      transforms: per-example transforms of the data (`data.pipeline`).
      samplers: name -> (`SampleRequest -> sample_fn(params, keys, *cond)`). The first is the default.
        There is none where nothing can be drawn.
      preview: `batch -> sample_fn(params, keys, *cond)`, a quick look during training.
      view: how samples are kept and shown (`views`).
      sample_condition: `(num, given) -> ()` or `(cond,)`: the condition of `num` samples, arrays [num, ...], from
        the user's arrays by name, which may be none (`conditions`).
      start: `params -> params`, what a new run starts from, given random parameters; outside of any compiled
        function, so that it may read files.
      clean: `batch -> x0 [B, ...]`, the data as the process takes it.
      condition: `batch -> ()` or `batch -> (cond,)`: what the network is told of each example.
      likelihoods: name -> (`steps or None -> likelihood_fn(params, keys [B], x0, *cond)`), which returns a NamedTuple
        with `total` [B], bits an entry, and more (`likelihood.Bound`).
      solved: those of them that solve an equation to a tolerance: name -> (`tolerance -> likelihood_fn`).
      log_prob: of a classifier, `(params, x_t [B, ...], t, label [B]) -> log p(label | x_t) [B]`; None otherwise.
      averages: further moving averages of the parameters, name -> how one follows them (`averages`). Those of a
        power-function profile are also kept now and then, for averages to be made of them after training.
      held: `() -> nested dictionary of arrays` that the loss is given and nothing trains: a teacher, an encoder.
        Called once, when the run begins, outside of any compiled function; the work directory keeps what it gave.
      rates: name -> (`number of the update, from 0 -> rate`), for the log.
      method: the parts that it was composed of (`methods.compose.Method`), for who wants to know them; None where it
        was put together otherwise.
    """

    example: Mapping[str, jax.ShapeDtypeStruct]
    init: Callable
    loss: Loss
    times: Times
    optimizer: optax.GradientTransformation
    ema_decay: float
    source: Source
    transforms: tuple[Callable, ...]
    samplers: Mapping[str, Callable]
    preview: Callable | None
    view: View
    sample_condition: SampleCondition = conditions.nothing
    start: Callable = lambda params: params
    clean: Callable = lambda batch: batch
    condition: Callable = lambda batch: ()
    likelihoods: Mapping[str, Callable] = MappingProxyType({})
    solved: Mapping[str, Callable] = MappingProxyType({})
    log_prob: Callable | None = None
    averages: Mapping[str, Average] = MappingProxyType({})
    held: Callable = dict
    rates: Mapping[str, Callable] = MappingProxyType({})
    method: Any = None
