"""How a method's parts become an `Experiment`, whatever the data."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config, Value
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import (
    Apply,
    ClassLogProb,
    Guide,
    Hold,
    LikelihoodOf,
    Loss,
    MakeLoss,
    Network,
    SampleFn,
    SolvedOf,
    Start,
    Transform,
)
from diffusion_jax.diffusion import guidance, samplers
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.time_sampling import Times
from diffusion_jax.methods.edits import MakeEdits, between, replaced
from diffusion_jax.training.averages import WIDEST, Average, named
from diffusion_jax.training.experiment import (
    OPTIONS,
    Data,
    Experiment,
    Export,
    MakeSampler,
    Measures,
    Optimization,
    SampleRequest,
    Sampling,
    Task,
)
from diffusion_jax.training.optimizers import MakeOptimizer, adam

AVERAGED = values.Real(1e-3, WIDEST)  # widths of profiles


class Chain(NamedTuple):
    """A sampler, its grid, and transforms of the denoiser."""

    sampler: samplers.Sampler
    times: np.ndarray
    transforms: Sequence[Transform] = ()


MakeChain: TypeAlias = Callable[..., Chain]  # its parameters are the options that it takes, of `steps` and `eta`
MakeGuide: TypeAlias = Callable[..., Guide]  # the same, of those of guidance


def unguided() -> Guide:
    """The guide of a model that takes no guidance: it passes the condition to the network."""
    return guidance.conditioned


MoreChains: TypeAlias = Callable[[Any], dict[str, MakeChain]]  # of a model -> further chains of a user


def nothing_more(model: Any) -> dict[str, MakeChain]:
    """The chains that a user adds to a model's: none."""
    return {}


def base_config() -> Config:
    """The values that every experiment has."""
    decay = values.Real(0.0, 1.0, below=True)
    return Config(
        seed=values.whole_number(0, "seed of all random numbers of the run", 0, 2**32 - 1),
        data=Config(threads=values.count(8, "threads that read examples", 512, zero="read when they are needed")),
        train=Config(
            batch_size=values.count(128, "examples of an update, over all devices", 2**20),
            accumulate=values.count(1, "parts that a device's share is computed in, one after another", 2**20),
            fsdp=values.flag(False, "whether parameters and optimiser state are spread over the devices"),
            steps=values.count(800_000, "updates until training ends"),
            steps_per_call=values.count(1, "updates that the compiled program makes before it returns", 1000),
            learning_rate=values.number(2e-4, "learning rate of Adam", 1e-12, 1000),
            warmup_steps=values.count(5000, "updates in which the rate rises from 0", zero="the full rate at once"),
            decay_steps=values.count(0, "updates in which the rate falls after that", zero="it stays as it is"),
            final_rate=values.number(0.0, "learning rate after decay_steps", 0, 1000),
            clip_norm=values.number(1.0, "norm that longer gradients are scaled to", 1e-6, 1e9, zero="no clipping"),
            ema_decay=Value(0.9999, "decay of the average that samples are drawn with", decay),
            ema_decays=values.listed((), "decays of further averages (sample --average)", decay),
            ema_profiles=values.listed((), "widths of power-function averages (sample --sigma-rel)", AVERAGED),
        ),
        log=Config(
            every=values.count(100, "steps between lines of metrics", zero="no lines"),
            checkpoint_every=values.count(5000, "steps between checkpoints", zero="only at the end, or when stopped"),
            keep=values.count(3, "newest checkpoints that stay", zero="all of them"),
            snapshot_every=values.count(0, "steps between snapshots of ema_profiles", zero="only at the end"),
            sample_every=values.count(10_000, "steps between previews", zero="none"),
            samples=values.count(64, "examples in a preview", 100_000, zero="no previews"),
            preview_steps=values.count(50, "steps of a preview's chain", 100_000, zero="the sampler's own"),
            evaluate_every=values.count(0, "steps between quick looks at the quality of images", zero="none"),
            evaluate_num=values.count(500, "images of a look", 1_000_000, zero="no looks", least=2),
            extractor=values.text("", "what looks: digits, the file of Inception's weights, a Python file"),
        ),
    )


def with_dir(config: Config) -> Config:
    """`config` with a place where its data is."""
    config.data.dir = values.text("", "where the data is, if not where the config looks by itself")
    return config


def without_chain(config: Config) -> Config:
    """`config`, of models that draw without a chain, without the steps of a preview's."""
    del config.log.preview_steps
    return config


class Method(NamedTuple):
    """The parts of a method on some data; a page's `method` gives one, and `_replace` changes a part.

    Attributes:
      data: the training data.
      model: a network, called with (input, time [B], *cond, dropout_keys=[B] or nothing).
      process: destroys the data, and gives the prior.
      parameterization: the network's input and output.
      loss: `(apply, parameterization, process) -> loss` (`losses`), which may look at `averages` and `held`.
      times: at which it is trained.
      chains: name -> (`(**options) -> Chain`); the first is the default sampler. Its parameters are the options that
        it takes, of `steps` and `eta`, with their defaults: `def ddim(steps=50, eta=0.0)`.
      preview: the one of them that draws during training, in `config.log.preview_steps` steps.
      guide: `(**options) -> Guide` (`guidance`), for all chains; of the options `guidance_scale`, `guidance_rescale`
        and `classifier`.
      schedule: of Gaussian noise, where the method has one.
      optimizer: `config.train -> Optimizer` (`training.optimizers`).
      start: `params -> params`: from random ones those that training starts from (`Task.start`).
      frozen: parts of the parameters that stay as they start, by their names in the tree's first level.
      likelihoods: name -> (`(apply, parameterization, steps or None) -> likelihood_fn`), see `Measures`.
      solved: name -> (`(apply, parameterization, tolerance) -> likelihood_fn`), see `Measures`.
      averages: further ones than the config's, for the loss: target networks.
      held: arrays that are read once and never trained (`Task.held`).
      edits: `process -> {name: Edit}`, how samples are drawn of which something is known (`methods.edits`).
      export: as of `Experiment`.
    """

    data: Data
    model: Network
    process: Process
    parameterization: Parameterization
    loss: MakeLoss
    times: Times
    chains: Mapping[str, MakeChain]
    preview: str
    guide: MakeGuide = unguided
    schedule: Schedule | None = None
    optimizer: MakeOptimizer = adam
    start: Start = lambda params: params
    frozen: Collection[str] = ()
    likelihoods: Mapping[str, LikelihoodOf] = MappingProxyType({})
    solved: Mapping[str, SolvedOf] = MappingProxyType({})
    averages: Mapping[str, Average] = MappingProxyType({})
    held: Hold = dict
    edits: MakeEdits = replaced
    export: Export | None = None


def compose(config: ConfigDict, method: Method) -> Experiment:
    """A method as an experiment; `config` has the sections of `base_config`.

    Raises:
      InputError: values that do not fit together, a size of images among them that the network cannot have.
    """
    data, model, parameterization = method.data, method.model, method.parameterization
    optimizer = method.optimizer(config.train)

    def apply(params, *inputs, **dropout_keys):
        return model.apply({"params": params}, *inputs, **dropout_keys)

    def network_input(key, batch):
        x = jax.vmap(lambda key: method.process.prior(key, data.shape))(key[None])
        return *parameterization.scale(x, jnp.ones(1)), *data.condition(batch)

    def train_apply(params, *inputs, **dropout_keys):
        held = {name: jax.lax.stop_gradient(part) if name in method.frozen else part for name, part in params.items()}
        return apply(held, *inputs, **dropout_keys)

    criterion = method.loss(train_apply, parameterization, method.process)
    # Only the shapes: nothing is drawn.
    one = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in data.example.items()}
    shapes = jax.eval_shape(network_input, jax.random.key(0), one)

    def init(key):
        return model.init(key, *jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))["params"]

    def preview(batch):
        try:
            return made[method.preview](SampleRequest(batch, steps=config.log.preview_steps or None))
        except InputError as error:
            raise InputError(f"log.preview_steps={config.log.preview_steps}: {error}") from error

    made = drawn_by(method.chains, apply, parameterization, method.process, data.shape, method.guide)
    return Experiment(
        data,
        Task(init, of_batch(criterion, data), method.times, method.start, method.held),
        Optimization(
            optimizer._replace(transformation=holding(method.frozen, optimizer.transformation)),
            config.train.ema_decay,
            {**named(config.train.ema_decays, config.train.ema_profiles), **method.averages},
        ),
        Sampling(
            made,
            preview,
            {**method.edits(method.process), **between(method.schedule)},
        ),
        Measures(
            {name: partial(make, apply, parameterization) for name, make in method.likelihoods.items()},
            {name: partial(make, apply, parameterization) for name, make in method.solved.items()},
        ),
        method,
        method.export,
    )


def composed(method: Callable[..., Method]) -> Callable[..., Experiment]:
    """`(config, ...) -> Experiment` of a page's `(config, ...) -> Method`."""

    def build(config: ConfigDict, *parts, **more) -> Experiment:
        return compose(config, method(config, *parts, **more))

    return build


def of_batch(loss: Loss, data: Data) -> Loss:
    """A loss of x0 and its condition (`losses`), as `Task.loss` of a batch."""
    return lambda keys, params, batch, context: loss(keys, params, data.clean(batch), context, *data.condition(batch))


def drawn_by(
    chains: Mapping[str, MakeChain],
    apply: Apply,
    parameterization: Parameterization,
    process: Process,
    shape: Any,
    guide: MakeGuide = unguided,
) -> dict[str, MakeSampler]:
    """Chains as samplers: name -> (`SampleRequest -> sample_fn(params, keys, *cond)`).

    Arguments as of `Method`, and `shape` as `process.prior` takes it. A sampler raises `InputError` for an option
    that neither its chain nor the guide takes.
    """

    def sampler(name: str) -> MakeSampler:
        def make(request: SampleRequest) -> SampleFn:
            given = {option: value for option in OPTIONS if (value := getattr(request, option)) is not None}
            for option in given:
                _check_taken(option, name, chains, guide)
            chain = chains[name](**_taken(given, chains[name]))
            stepper = chain.sampler
            if request.report is not None:
                stepper = samplers.reporting(stepper, request.report)
            return samplers.make_sample_fn(
                lambda params, *inputs: apply(request.gather(params), *inputs),
                parameterization,
                process,
                stepper,
                chain.times,
                request.batch,
                shape,
                chain.transforms,
                request.run or samplers.solve,
                guide(**_taken(given, guide)),
            )

        return make

    return {name: sampler(name) for name in chains}


def direct(draw: SampleFn) -> MakeSampler:
    """A sampler without a chain, such as a decoder of random codes: `SampleRequest -> sample_fn`.

    Args:
      draw: `(params, keys [B], *cond) -> samples [B, ...]`. It takes no option.

    The sampler raises `InputError` for each option that is asked for, and for another walk of a chain (a film).
    """

    def make(request: SampleRequest) -> SampleFn:
        asked = [flag for option, flag in OPTIONS.items() if getattr(request, option) is not None]
        if asked or request.run is not None:
            raise InputError(
                f"this model draws without a chain and takes no {' and no '.join(asked or ['--film'])}; leave it out"
            )
        return on_any_mesh(
            lambda params, key, *cond: draw(request.gather(params), rng.of_batch(key, request.batch), *cond)
        )

    return make


def _taken(options: Mapping[str, Any], function: MakeChain | MakeGuide) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in parameters}


def _check_taken(option: str, name: str, chains: Mapping[str, MakeChain], guide: MakeGuide):
    """`InputError` unless the sampler `name` takes `option`."""
    if _taken({option: None}, guide) or _taken({option: None}, chains[name]):
        return
    flag, others = OPTIONS[option], [other for other in chains if _taken({option: None}, chains[other])]
    if others:
        raise InputError(f"the sampler {name} takes no {flag}; add --sampler {others[0]}, or leave {flag} out")
    raise InputError(f"no sampler of this model takes {flag}; leave it out")


def by_classifier(schedule: Schedule) -> MakeGuide:
    """The guide of a model without a label: a classifier's, where one is given."""

    def guide(guidance_scale: float | None = None, classifier: ClassLogProb | None = None) -> Guide:
        if classifier is None:
            if guidance_scale is not None:
                raise InputError(f"guidance {guidance_scale} takes a classifier for this model; add --classifier DIR")
            return guidance.conditioned

        def guided(denoise, cond):
            by = guidance.classifier(
                schedule,
                lambda x_t, t: classifier(x_t, t, cond["label"]),
                1.0 if guidance_scale is None else guidance_scale,
            )
            rest = {name: value for name, value in cond.items() if name != "label"}
            return by(guidance.conditioned(denoise, *([rest] if rest else [])))

        return guided

    return guide


def holding(frozen: Collection[str], rest: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rest` for all but the parts named `frozen`, which it leaves alone and keeps nothing for."""
    if not frozen:
        return rest  # the plain state, without a wrapping that says nothing

    def groups(params):
        return {name: "frozen" if name in frozen else "trained" for name in params}

    return optax.partition({"trained": rest, "frozen": optax.set_to_zero()}, groups)
