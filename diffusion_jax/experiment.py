"""An experiment: everything that a run needs, composed. A config's `build` makes one; the loops only call it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import optax

from diffusion_jax.training_times import Times
from diffusion_jax.views import View


class SampleRequest(NamedTuple):
    """What a person asks of a sampler.

    Attributes:
      batch: examples drawn at a time.
      steps: steps of the chain, or None for the sampler's own default.
      eta: DDIM's noise, or None where the sampler has none or for its default.
      run: `samplers.solve`, or another walk of the same chain (`samplers.film` with its frames).
      report: None, or `report(share)`, called on the host now and then while the chain runs, with how much is done.
    """

    batch: int
    steps: int | None = None
    eta: float | None = None
    run: Callable | None = None
    report: Callable | None = None


class Experiment(NamedTuple):
    """The parts of one experiment.

    Attributes:
      example: name -> shape and dtype, of what is used of an example of the data: {"image": uint8 [H, W, C]}.
      init: `key -> params`.
      loss: `(keys [b], params, batch, t [b]) -> loss per example [b]`; batches come from `source`.
      times: how the times t are drawn (`training_times`).
      optimizer: an optax transformation.
      ema_decay: of the moving average of the parameters.
      source: `() -> random-access source` (`data.sources`); called by training only.
      transforms: per-example transforms of the data (`data.pipeline`).
      samplers: name -> (`SampleRequest -> sample_fn(params, keys)`). The first is the default.
      preview: `batch -> sample_fn(params, keys)`, a quick look during training.
      view: how samples are kept and shown (`views`).
    """

    example: Mapping[str, jax.ShapeDtypeStruct]
    init: Callable
    loss: Callable
    times: Times
    optimizer: optax.GradientTransformation
    ema_decay: float
    source: Callable
    transforms: tuple[Callable, ...]
    samplers: Mapping[str, Callable]
    preview: Callable
    view: View
