"""An experiment: everything that a run needs, composed. A config's `build` makes one; the loops only call it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax


class SampleRequest(NamedTuple):
    """What a person asks of a sampler.

    Attributes:
      batch: images drawn at a time.
      steps: network evaluations, or None for the sampler's own default.
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
      shape: (H, W, C) of the images.
      init: `key -> params`.
      loss: `(keys [b], params, batch) -> (loss per example [b], info)`; batches come from `source`.
      optimizer: an optax transformation.
      ema_decay: of the moving average of the parameters.
      source: `() -> random-access source` (`data.sources`); called by training only.
      transforms: per-example transforms of the data (`data.pipeline`).
      samplers: name -> (`SampleRequest -> sample_fn(params, keys)`). The first is the default.
      preview: `batch -> sample_fn(params, keys)`, a quick look during training.
    """

    shape: tuple[int, int, int]
    init: Callable
    loss: Callable
    optimizer: optax.GradientTransformation
    ema_decay: float
    source: Callable
    transforms: tuple[Callable, ...]
    samplers: Mapping[str, Callable]
    preview: Callable
