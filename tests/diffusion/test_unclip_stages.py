"""What stands between unCLIP's networks, and noise by a second table."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import noising, schedules, stages, unclip
from diffusion_jax.diffusion.noising import Noising

NUM, BATCH, FEATURES = 10, 4, 3
TABLE = Noising(schedules.from_betas(schedules.linear_betas(NUM, 0.05, 0.4)), NUM)
ALPHA_BAR = np.cumprod(1 - np.linspace(0.05, 0.4, NUM))
KEYS = rng.per_example(rng.root(0), np.arange(BATCH))
EMBEDDING = np.random.default_rng(0).normal(size=(BATCH, FEATURES)).astype(np.float32)
LEVELS = jnp.array([0.0, 9.0, 3.0, 5.0])


def noised(x, levels):
    eps = rng.normal_like(KEYS, jnp.asarray(x))
    alpha_bar = ALPHA_BAR[np.asarray(levels, int)].reshape(-1, *[1] * (x.ndim - 1))
    return np.sqrt(alpha_bar) * x + np.sqrt(1 - alpha_bar) * eps


def test_each_example_has_the_noise_of_its_own_index():
    np.testing.assert_allclose(TABLE.corrupt(KEYS, EMBEDDING, LEVELS), noised(EMBEDDING, LEVELS), rtol=1e-5)


def test_an_index_beyond_the_table_is_not_passed_over():
    found = TABLE.corrupt(KEYS, EMBEDDING, jnp.array([0.0, 10.0, -1.0, 9.0]))
    np.testing.assert_array_equal(np.isnan(found).all(-1), [False, True, True, False])
    assert np.isfinite(found[::3]).all()


def test_a_stage_adds_noise_to_what_a_network_is_told():
    low = np.random.default_rng(1).normal(size=(BATCH, 2, 2, 1)).astype(np.float32)
    stage = noising.renoise("noise", TABLE, "beside", (2, 2, 1))
    stages.check([stage], {"beside": (2, 2, 1), "noise_level": ()})
    (found,) = stage.run({}, KEYS, {"beside": low, "noise_level": LEVELS}).values()
    np.testing.assert_allclose(found, noised(low, LEVELS), rtol=1e-5)


def test_stable_unclips_vector():
    """Noise on the standardised embedding, and a wave of the index; 0 withholds both."""
    params = {"mean": np.array([1.0, -2.0, 0.5], np.float32), "std": np.array([2.0, 0.5, 1.0], np.float32)}
    stage = unclip.renoised("vector", TABLE, lambda level, features: level[:, None] * jnp.ones(features), FEATURES)
    known = stages.check([stage], {"image_embedding": (FEATURES,), "noise_level": ()})
    assert known["vector"] == known["null_vector"] == (2 * FEATURES,)
    found = stages.one(
        stage, params, rng.root(0)[None], {"image_embedding": EMBEDDING[:1], "noise_level": LEVELS[:1]}
    )
    assert found["vector"].shape == (1, 2 * FEATURES)
    found = stage.run(params, KEYS, {"image_embedding": EMBEDDING, "noise_level": LEVELS})
    noisy = noised((EMBEDDING - params["mean"]) / params["std"], LEVELS) * params["std"] + params["mean"]
    wanted = np.concatenate([noisy, np.repeat(LEVELS[:, None], FEATURES, axis=1)], axis=-1)
    np.testing.assert_allclose(found["vector"], wanted, rtol=1e-5)
    np.testing.assert_array_equal(found["null_vector"], np.zeros_like(wanted))


def test_the_best_of_two_restored_embeddings_agrees_best_with_the_text():
    """In the order of the paper: what is compared is the embedding itself, not the standardised one."""
    params = {"clip_mean": jnp.array([5.0, 0.0, 0.0]), "clip_std": jnp.array([1.0, 3.0, 0.5])}

    def draw(params, keys, cond):
        return rng.normal_like(keys, cond["text_embedding"])

    told = {"text_embedding": (FEATURES,)}
    prior = stages.chain("prior", unclip.restoring(draw), told, "image_embedding", (FEATURES,))
    best = stages.best_of(2, unclip.agreement, prior, told)
    found = best.run(params, KEYS, {"text_embedding": EMBEDDING})["image_embedding"]
    draws = np.stack([draw(params, rng.each(KEYS, n), {"text_embedding": jnp.asarray(EMBEDDING)}) for n in range(2)])
    draws = draws * params["clip_std"] + params["clip_mean"]
    chosen = (draws * EMBEDDING).sum(-1).argmax(0)
    assert set(chosen.tolist()) == {0, 1}
    np.testing.assert_allclose(found, draws[chosen, np.arange(BATCH)], rtol=1e-6)


def test_projections_withhold_the_image_and_the_text():
    def project(params, image, text, tokens, mask, withheld):
        image = jnp.where(withheld[:, None], params, image)
        return {
            "tokens": jnp.concatenate([image[:, None], tokens], axis=1),
            "token_mask": mask,
            "vector": image + text,
        }

    size, told = (FEATURES,), (2, FEATURES)
    needs = {"image_embedding": size, "text_embedding": size, "tokens": told, "token_mask": (2,)}
    needs |= {f"null_{name}": needs[name] for name in ("text_embedding", "tokens", "token_mask")}
    gives = {"tokens": (3, FEATURES), "token_mask": (2,), "vector": size}
    stage = unclip.projected("text_proj", project, needs, gives)
    assert stages.check([stage], needs)["null_tokens"] == (3, FEATURES)
    cond = {name: np.full((BATCH, *shape), float(n), np.float32) for n, (name, shape) in enumerate(needs.items())}
    found = stages.one(stage, 7.0, KEYS, cond)
    np.testing.assert_array_equal(found["vector"], np.full((BATCH, FEATURES), 0 + 1))
    np.testing.assert_array_equal(found["null_vector"], np.full((BATCH, FEATURES), 7 + 4))
    np.testing.assert_array_equal(found["tokens"][:, :, 0], [[0, 2, 2]] * BATCH)
    np.testing.assert_array_equal(found["null_tokens"][:, :, 0], [[7, 5, 5]] * BATCH)
    np.testing.assert_array_equal(found["null_token_mask"], np.full((BATCH, 2), 6))
    with pytest.raises(InputError, match="needs 'null_tokens', and nothing before gives it"):
        stages.check([stage], {name: shape for name, shape in needs.items() if name != "null_tokens"})
