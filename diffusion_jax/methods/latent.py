"""Models of what another model makes of data: priors over codes, diffusion of latents.

The other model, a first stage, is held: it encodes what is trained on, and decodes what is drawn. So data, samples
and measures are those of the data itself, and no view and no metric knows about codes.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.core import rng
from diffusion_jax.core.protocols import Hold, LikelihoodFn, SampleFn, Tree
from diffusion_jax.diffusion import samplers
from diffusion_jax.methods import edits
from diffusion_jax.methods.compose import Method, compose
from diffusion_jax.training.experiment import Edit, Experiment, MakeSampler, Sampling


def nothing(held: Tree, keys: jax.Array) -> dict[str, Any]:
    """What a model is told of which nothing else is drawn before."""
    return {}


class FirstStage(NamedTuple):
    """A model that is held, around one that is trained.

    Attributes:
      hold: `() -> held`, its parameters.
      encode: `(held, keys [B], x0 [B, ...]) -> (z [B, ...], told)`, z a draw where the code is a law; `told`, name ->
        [B, ...], is what the trained model is told beside its condition, such as codes of another level.
      decode: `(held, z, told) -> x0`.
      tell: `(held, keys [B]) -> told`, in place of what `encode` tells, when samples are drawn.
      told: name -> shape and dtype of what is told of one example.
      known: `(held, x0) -> z` without a draw, by which samples are drawn of which pictures say something; None where
        there is no such z.
      shape: of one x0, where there is `known`.
    """

    hold: Hold
    encode: Callable[[Tree, jax.Array, Tree], tuple[Tree, Mapping[str, Any]]]
    decode: Callable[[Tree, Tree, Mapping[str, Any]], Tree]
    tell: Callable[[Tree, jax.Array], Mapping[str, Any]] = nothing
    told: Mapping[str, jax.ShapeDtypeStruct] = MappingProxyType({})
    known: Callable[[Tree, Tree], Tree] | None = None
    shape: Any = None


def compose_within(config: ConfigDict, stage: FirstStage, method: Method) -> Experiment:
    """`method`, of z, as an experiment on x0.

    Args:
      config: values, with the sections of `compose.base_config`.
      stage: between x0 and z.
      method: its `data.shape` is that of z, its `data.clean` and `data.view` are of x0.
    """

    def loss(apply, parameterization, process):
        of_codes = method.loss(apply, parameterization, process)

        def of_data(keys, params, x0, context, *cond):
            z, told = jax.lax.stop_gradient(stage.encode(context.held, _own(keys), x0))
            return of_codes(keys, params, z, context, *_joined(cond, told))

        return of_data

    def condition(batch):
        """What is told is made of what is held. Here stand zeros, for the network's shapes."""
        size = len(jax.tree.leaves(batch)[0])
        zeros = {name: jnp.zeros((size, *x.shape), x.dtype) for name, x in stage.told.items()}
        return _joined(method.data.condition(batch), zeros)

    data = method.data._replace(condition=condition)
    known = compose(config, method._replace(data=data, loss=loss, held=stage.hold))
    preview = known.sampling.preview
    return known._replace(
        sampling=Sampling(
            {name: decoded(stage, make) for name, make in known.sampling.samplers.items()},
            preview and (lambda batch: _drawn(stage, preview(batch), lambda params: params)),
            edited(stage, known.sampling.edits),
            whole=lambda params, hold: whole(params, dict(hold())),
        ),
        measures=known.measures._replace(
            likelihoods={
                name: lambda steps, make=make: _encoded(stage, make(steps))  # type: ignore[misc]
                for name, make in known.measures.likelihoods.items()
            },
            solved={},
        ),
    )


def whole(trained: Tree, held: Tree) -> dict[str, Tree]:
    """The parameters as `decoded` samplers take them."""
    return {"trained": trained, "held": held}


def edited(stage: FirstStage, made: Mapping[str, Edit]) -> dict[str, Edit]:
    """Edits of z as edits of x0 (`edits.within`)."""
    encode = stage.known
    return {} if encode is None else edits.within(lambda params, x0: encode(params["held"], x0), stage.shape, made)


def decoded(stage: FirstStage, make: MakeSampler) -> MakeSampler:
    """A sampler of z as one of x0; its parameters are those of `whole`."""
    return lambda request: _drawn(stage, make(request), request.gather)


def _drawn(stage: FirstStage, draw: SampleFn, gather) -> SampleFn:
    """A sampler of z as one of x0; of a film every frame is decoded."""

    def sample(params, keys, *cond):
        held = gather(params["held"])
        told = stage.tell(held, keys)
        drawn = draw(params["trained"], keys, *_joined(cond, told))
        return samplers.ended(drawn, lambda z: stage.decode(held, z, told))

    return sample


def _encoded(stage: FirstStage, likelihood: LikelihoodFn) -> LikelihoodFn:
    """A likelihood of z as one of x0."""

    def of_data(params, keys, x0, *cond):
        z, told = stage.encode(params["held"], _own(keys), x0)
        return likelihood(params["trained"], keys, z, *_joined(cond, told))

    return of_data


def _own(keys: jax.Array) -> jax.Array:
    """Keys of the first stage's own, beside those of the trained model."""
    return jax.vmap(lambda key: rng.stream(key, "encode"))(keys)


def _joined(cond: tuple, told: Mapping[str, Any]) -> tuple:
    """() or (cond,), with what is told beside it."""
    return ({**(cond[0] if cond else {}), **told},) if cond or told else ()
