"""Stages and their fold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import parameterizations, processes, samplers, schedules, stages
from diffusion_jax.diffusion.stages import Stage

SCHEDULE = schedules.cosine()
GIVEN = {"ids": (3,)}


def noise(name, needs, into, size):
    """A stage that draws: the sum of what it is told, w and noise of its own."""

    def run(params, keys, cond):
        told = sum(value.sum(1, keepdims=True) for value in cond.values())
        return {into: params["w"] + told + rng.normal_like(keys, jnp.zeros((len(keys), size)))}

    return Stage(name, run, needs, {into: (size,)})


ENCODE = stages.encode(
    "text", lambda params, cond: {"tokens": params["table"][cond["ids"]][..., 0]}, GIVEN, {"tokens": (3,)}
)
PRIOR = noise("prior", {"tokens": (3,)}, "embedding", 2)
DECODER = noise("decoder", {"embedding": (2,), "tokens": (3,)}, "low", 4)
DOUBLE = stages.arrays(
    "enlarge", lambda cond: {"image": cond["low"].repeat(2, axis=1)}, {"low": (4,)}, {"image": (8,)}
)
ALL = [ENCODE, PRIOR, DECODER, DOUBLE]
PARAMS = {"text": {"table": jnp.arange(5.0)[:, None]}, "prior": {"w": jnp.ones(2)}, "decoder": {"w": jnp.zeros(4)}}
IDS = {"ids": np.arange(24).reshape(8, 3) % 5}
ROOT = rng.root(3)


def test_the_fold_is_its_stages_called_by_hand():
    sample = stages.pipeline(ALL, GIVEN, "image")
    keys = rng.per_example(ROOT, np.arange(8))
    known = dict(IDS)
    for stage in ALL:
        known |= stages.one(stage, PARAMS.get(stage.name, {}), keys, known)
    np.testing.assert_array_equal(sample(PARAMS, ROOT, IDS), known["image"])
    # Whose draws are its own: the noise of the prior is not that of the decoder.
    own = rng.normal_like(stages.keys_of("prior", keys), jnp.zeros((8, 2)))
    np.testing.assert_allclose(known["embedding"], 1 + known["tokens"].sum(1, keepdims=True) + own, rtol=1e-6)


def test_an_image_depends_neither_on_the_batch_nor_on_the_process():
    sample = jax.jit(stages.pipeline(ALL, GIVEN, "image"))
    keys = rng.per_example(ROOT, np.arange(8))
    whole = sample(PARAMS, ROOT, IDS)
    for i in range(8):
        np.testing.assert_array_equal(sample(PARAMS, keys[i : i + 1], {"ids": IDS["ids"][i : i + 1]})[0], whole[i])
    # One process ends after the prior, another goes on with what it kept.
    kept = stages.run(ALL[:2], PARAMS, keys, IDS)
    np.testing.assert_array_equal(stages.run(ALL[2:], PARAMS, keys, kept)["image"], whole)


def test_networks_are_read_when_their_turn_comes():
    read = []

    def hold(name):
        def params():
            read.append(name)
            return PARAMS[name]

        return params

    keys = rng.per_example(ROOT, np.arange(8))
    known = stages.apart(ALL, {name: hold(name) for name in PARAMS}, keys, IDS)
    assert read == ["text", "prior", "decoder"]
    np.testing.assert_allclose(known["image"], stages.pipeline(ALL, GIVEN, "image")(PARAMS, ROOT, IDS), rtol=1e-6)


def test_a_stage_of_a_users_own_enters_with_no_edit():
    def palette(cond):
        return {"image": jnp.round(cond["image"])}

    reduced = stages.arrays("palette", palette, {"image": (8,)}, {"image": (8,)})
    got = stages.pipeline([*ALL, reduced], GIVEN, "image")(PARAMS, ROOT, IDS)
    np.testing.assert_array_equal(got, jnp.round(stages.pipeline(ALL, GIVEN, "image")(PARAMS, ROOT, IDS)))


def test_a_chain_is_a_stage():
    process = processes.gaussian(SCHEDULE)
    sample = samplers.make_sample_fn(
        lambda params, x, t, cond: params["w"] * cond["tokens"].sum(1, keepdims=True) + 0 * x,
        parameterizations.x0(lambda t: t),
        process,
        samplers.ancestral(process),
        np.linspace(1, 0, 4)[:-1],  # it ends in noise
        8,
        (2,),
    )
    drawn = stages.chain("unet", sample, {"tokens": (3,)}, "latent", (2,))
    params = PARAMS | {"unet": {"w": 2.0}}
    keys = rng.per_example(ROOT, np.arange(8))
    tokens = stages.run([ENCODE], params, keys, IDS)["tokens"]
    wanted = sample(params["unet"], stages.keys_of("unet", keys), {"tokens": tokens})
    np.testing.assert_array_equal(stages.pipeline([ENCODE, drawn], GIVEN, "latent")(params, ROOT, IDS), wanted)


def test_the_best_of_several_draws_stays():
    best = stages.best_of(4, lambda cond: cond["embedding"][:, 0] * cond["tokens"][:, 0], PRIOR, {"tokens": (3,)})
    keys = rng.per_example(ROOT, np.arange(8))
    tokens = {"tokens": jnp.where(np.arange(24).reshape(8, 3) % 2 == 0, 1.0, -1.0)}
    got = stages.one(best, PARAMS["prior"], keys, tokens)["embedding"]
    own = stages.keys_of("prior", keys)
    draws = np.stack([PRIOR.run(PARAMS["prior"], rng.each(own, n), tokens)["embedding"] for n in range(4)])
    chosen = (draws[..., 0] * tokens["tokens"][:, 0]).argmax(0)
    assert len(set(chosen.tolist())) > 1
    np.testing.assert_allclose(got, draws[chosen, np.arange(8)], rtol=1e-6)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (
            [ENCODE, DECODER, PRIOR],
            "the stage 'decoder' needs 'embedding', and the stage 'prior' gives it later; put",
        ),
        ([PRIOR, DECODER], "the stage 'prior' needs 'tokens', and nothing before gives it"),
        ([ENCODE, ENCODE], "two stages are named 'text'"),
        ([ENCODE, noise("prior", {"tokens": (4,)}, "x", 2)], r"needs 'tokens' of shape \[4\], and is given \[3\]"),
        ([ENCODE, PRIOR], "no stage gives 'image', only embedding, ids, tokens"),
    ],
)
def test_stages_that_do_not_fit_are_refused_by_name(order, message):
    with pytest.raises(InputError, match=message):
        stages.pipeline(order, GIVEN, "image")


def test_a_stage_gives_what_it_says():
    other = stages.arrays("odd", lambda cond: {"y": cond["ids"]}, GIVEN, {"x": (3,)})
    with pytest.raises(InputError, match=r"the stage 'odd' gave \['y'\], and says that it gives \['x'\]"):
        stages.pipeline([other], GIVEN, "x")(PARAMS, ROOT, IDS)
    with pytest.raises(InputError, match="its condition is empty"):
        stages.pipeline(ALL, GIVEN, "image")(PARAMS, ROOT, {})
