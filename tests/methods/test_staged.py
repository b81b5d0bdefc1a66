"""A model between stages that its run holds: the whole pipeline is its parts, called by hand, together or apart."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import conditions, views
from diffusion_jax.diffusion import parameterizations, samplers, schedules, stages
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.methods import continuous, staged
from diffusion_jax.training.experiment import Data, SampleRequest
from tests import tiny

SIZE, NUM = 3, 6


class Network:
    """E[x0 | x_t] of a model that is told x0 itself, times a parameter."""

    def init(self, key, x, time, cond):
        return {"params": {"scale": jnp.ones(())}}

    def apply(self, variables, x, time, cond, dropout_keys=None):
        return variables["params"]["scale"] * cond["told"]


def pipeline(before=None):
    """What is told is twice a number that is held; what is drawn is the sample and the number, with noise."""

    def noisy(params, keys, cond):
        return {"result": cond["z"] + params["shift"] + rng.normal_like(keys, cond["z"])}

    vector = (SIZE,)
    double = Stage(
        "double", lambda params, keys, cond: {"told": params["gain"] * cond["x"]}, {"x": vector}, {"told": vector}
    )
    return staged.Pipeline(
        hold=lambda: {"double": {"gain": jnp.full((), 2.0)}, "noisy": {"shift": jnp.full((), 0.5)}},
        encode=lambda held, keys, x0: (x0 + 1, {"told": held["double"]["gain"] * x0}),
        told={"told": jax.ShapeDtypeStruct(vector, jnp.float32)},
        given={"x": vector},
        name="model",
        into="z",
        result="result",
        before=(double,) if before is None else before,
        after=lambda request: (Stage("noisy", noisy, {"z": vector}, {"result": vector}),),
    )


DATA = Data(
    lambda split: [],
    example={"x": jax.ShapeDtypeStruct((SIZE,), jnp.float32)},
    clean=lambda batch: batch["x"],
    shape=(SIZE,),
    view=views.points(1.0),
    sample_condition=conditions.arrays(lambda num: {"x": np.ones((1, SIZE))}, x=(SIZE,)),
)
METHOD = continuous.model_of(DATA, Network(), schedules.cosine(), lambda schedule, time: parameterizations.x0(time))
X = {"x": jnp.arange(NUM * SIZE, dtype=jnp.float32).reshape(NUM, SIZE) / 10}
PARAMS = {"trained": {"scale": jnp.full((), 1.5)}, "held": pipeline().hold()}
OWN = {"model": PARAMS["trained"], **PARAMS["held"]}


def drawn(made, request, cond=X, keys=None):
    experiment = staged.compose(tiny.get_config(), made, METHOD)
    keys = rng.per_example(rng.root(0), jnp.arange(request.batch)) if keys is None else keys
    return jax.jit(experiment.sampling.samplers["ddim"](request))(PARAMS, keys, cond)


def test_together_and_apart_it_is_the_same():
    request = SampleRequest(NUM, steps=3)
    together = drawn(pipeline(), request)
    listed = staged.all_stages(pipeline(), METHOD, "ddim", request)
    keys = rng.per_example(rng.root(0), jnp.arange(NUM))
    whole = jax.jit(stages.pipeline(listed, {"x": (SIZE,)}, "result"))(OWN, keys, X)
    np.testing.assert_array_equal(together, whole)
    read = {name: partial(lambda name: OWN[name], name) for name in OWN}
    np.testing.assert_allclose(stages.apart(listed, read, keys, X)["result"], whole, atol=1e-6)
    noise = rng.normal_like(stages.keys_of("noisy", keys), together)
    np.testing.assert_allclose(together, 1.5 * 2 * X["x"] + 0.5 + noise, atol=1e-5)
    two = drawn(pipeline(), SampleRequest(2, steps=3), {"x": X["x"][2:4]}, keys[2:4])
    np.testing.assert_allclose(together[2:4], two, atol=1e-6)


def test_a_film_ends_with_the_sample_and_every_frame_is_finished():
    film = drawn(pipeline(), SampleRequest(NUM, steps=3, run=partial(samplers.film, frames=3)))
    assert film.pictures.shape == (4, NUM, SIZE)
    np.testing.assert_allclose(film.pictures[-1], film.x, atol=1e-6)
    np.testing.assert_allclose(film.x, drawn(pipeline(), SampleRequest(NUM, steps=3)), atol=1e-6)


def test_in_training_a_model_is_told_what_the_held_stages_say():
    experiment = staged.compose(tiny.get_config(), pipeline(), METHOD)
    keys = rng.per_example(rng.root(1), jnp.arange(NUM))
    losses, _ = experiment.task.loss(keys, {"scale": jnp.ones(())}, X, Context(jnp.ones(NUM), held=pipeline().hold()))
    # x0 is told twice over and is one more: the error of x0 is known, whatever the noise.
    np.testing.assert_allclose(losses, ((2 * X["x"] - (X["x"] + 1)) ** 2).mean(axis=1), rtol=1e-5)
    assert not experiment.measures.likelihoods


def test_a_stage_that_lacks_something_is_named_before_anything_is_read():
    made = staged.compose(tiny.get_config(), pipeline(before=()), METHOD).sampling.samplers["ddim"]
    with pytest.raises(InputError, match="the stage 'model' needs 'told', and nothing before gives it"):
        made(SampleRequest(2))
    made = staged.compose(tiny.get_config(), pipeline()._replace(result="picture"), METHOD).sampling.samplers["ddim"]
    with pytest.raises(InputError, match="no stage gives 'picture'"):
        made(SampleRequest(2))
