"""A model in the middle of a pipeline: what stands before and after it are stages that its run holds.

It is trained on what one of them makes of data, told what others do, and draws what those after it make of its
samples. A prior over embeddings draws pictures so (`methods.unclip`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.core import rng
from diffusion_jax.core.protocols import Hold, SampleFn, Tree
from diffusion_jax.diffusion import samplers, stages
from diffusion_jax.diffusion.stages import Shape, Stage
from diffusion_jax.methods import latent
from diffusion_jax.methods.compose import Method, drawn_by
from diffusion_jax.training.experiment import Experiment, MakeSampler, Measures, SampleRequest, Sampling

# `request -> stages`: a held chain draws as many examples as the request says.
MakeStages: TypeAlias = Callable[[SampleRequest], Sequence[Stage]]


def no_stages(request: SampleRequest) -> Sequence[Stage]:
    """Of a model whose samples are what is drawn."""
    return ()


class Pipeline(NamedTuple):
    """What stands around a model. Parameters of stages are held under their names.

    Attributes:
      hold: `() -> {name of a stage: its parameters}`.
      encode: `(held, keys [B], x0) -> (z [B, ...], told)`: in training, what the model is of, and all it is told.
      told: name -> shape and dtype of what it is told of one example.
      given: name -> shape of one example, of what samples are told at first (`Data.sample_condition`).
      name: of the model's stage.
      into: the entry that its samples become.
      result: the entry that is drawn.
      before: from what is given to what the model is told.
      after: from its samples to the result.
      wrap: what is made of the model's own stage, such as the best of several draws (`stages.best_of`).
    """

    hold: Hold
    encode: Callable[[Tree, jax.Array, Tree], tuple[Tree, Mapping[str, Any]]]
    told: Mapping[str, jax.ShapeDtypeStruct]
    given: Mapping[str, Shape]
    name: str
    into: str
    result: str
    before: Sequence[Stage] = ()
    after: MakeStages = no_stages
    wrap: Callable[[Stage], Stage] = lambda stage: stage


def compose(config: ConfigDict, pipeline: Pipeline, method: Method) -> Experiment:
    """`method`, of z, as an experiment on x0 whose samples come out of the whole pipeline.

    Args:
      config: values, with the sections of `compose.base_config`.
      pipeline: around it.
      method: its `data.shape` is that of z; `data.clean`, of all that `encode` reads, and `data.view` are of x0.
    """

    def unused(held, z, told):
        return z

    inside = latent.FirstStage(pipeline.hold, pipeline.encode, unused, told=pipeline.told)
    experiment = latent.compose_within(config, inside, method)
    samplers_of = {name: _drawing(pipeline, method, make) for name, make in chains(method).items()}

    def preview(batch):
        return samplers_of[method.preview](SampleRequest(batch, steps=config.log.preview_steps or None))

    sampling = Sampling(samplers_of, preview, whole=lambda params, hold: latent.whole(params, dict(hold())))
    return experiment._replace(sampling=sampling, measures=Measures())


def chains(method: Method) -> dict[str, MakeSampler]:
    """A method's samplers: name -> (`request -> sample_fn(params, keys, *cond)`)."""

    def apply(params, *inputs):
        return method.model.apply({"params": params}, *inputs)

    return drawn_by(method.chains, apply, method.parameterization, method.process, method.data.shape, method.guide)


def all_stages(pipeline: Pipeline, method: Method, sampler: str, request: SampleRequest) -> list[Stage]:
    """The stages of the whole pipeline, checked, for `stages.pipeline` or `stages.apart`."""
    return [*pipeline.before, _own(pipeline, method, chains(method)[sampler], request), *pipeline.after(request)]


def _own(pipeline, method, make, request) -> Stage:
    needs = {name: tuple(x.shape) for name, x in pipeline.told.items()}
    stage = stages.chain(pipeline.name, make(request), needs, pipeline.into, tuple(method.data.shape))
    # Films and breaks are walks of one chain, not of the best of several.
    return pipeline.wrap(stage) if request.run is None else stage


def _drawing(pipeline: Pipeline, method: Method, make: MakeSampler) -> MakeSampler:
    def made(request: SampleRequest) -> SampleFn:
        own, after = _own(pipeline, method, make, request), pipeline.after(request)
        stages.check_gives([*pipeline.before, own, *after], pipeline.given, pipeline.result)

        def sample(params, key, cond):
            keys = rng.of_batch(key, request.batch)
            held = request.gather(params["held"])
            entries = stages.run(pipeline.before, held, keys, cond)
            drawn = stages.one(own, params["trained"], keys, entries)[pipeline.into]

            def finished(z):
                return stages.run(after, held, keys, {**entries, pipeline.into: z})[pipeline.result]

            return samplers.ended(drawn, finished)

        return sample

    return made


def zeros(told: Mapping[str, jax.ShapeDtypeStruct], size: int) -> dict[str, jax.Array]:
    """Arrays [size, ...] in place of what a model is told, for the shapes of its network."""
    return {name: jnp.zeros((size, *x.shape), x.dtype) for name, x in told.items()}
