"""Edits of pictures by models of codes: a first stage of patches, whose codes are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.app import known
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import editing, parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.methods import edits, latent
from diffusion_jax.methods.compose import Chain, drawn_by
from diffusion_jax.training.experiment import SampleRequest

SHAPE, STEPS, BATCH = (6, 8, 1), 4, 2
SCHEDULE = schedules.cosine()
PROCESS = processes.gaussian(SCHEDULE)
KEYS = rng.per_example(rng.root(0), jnp.arange(BATCH))


def encode(held, x0):
    """Means of patches of 2x2, times a number that is held; and what lies to the right is a part of each code."""
    means = x0.reshape(-1, 3, 2, 4, 2, 1).mean((2, 4))
    return held * (means + 0.5 * jnp.roll(means, -1, axis=2))


def decode(held, z, told):
    return z.repeat(2, axis=1).repeat(2, axis=2) / held


STAGE = latent.FirstStage(
    hold=lambda: 2.0,
    encode=lambda held, keys, x0: (encode(held, x0), {}),
    decode=decode,
    known=encode,
    shape=SHAPE,
)
PARAMS = latent.whole({}, jnp.float32(2.0))


def chain(steps=STEPS):
    return Chain(samplers.ddim(SCHEDULE, 1.0), timesteps.uniform(steps, 1000))


# The network says that x0 is x_t: whatever is drawn depends on the noise.
MAKE = drawn_by({"ddim": chain}, lambda params, x, t: x, parameterizations.x0(lambda t: t), PROCESS, (3, 4, 1))[
    "ddim"
]
DECODED = latent.decoded(STAGE, MAKE)
EDITS = latent.edited(STAGE, edits.replaced(PROCESS))
PICTURE = np.random.default_rng(0).uniform(-1, 1, (BATCH, *SHAPE)).astype(np.float32)
MASK = np.zeros((BATCH, *SHAPE), np.float32)
MASK[:, :3, 1:] = 1  # of a code all pixels are known in 1 row of 2, and 3 columns of 4


def drawn(edit, run=None, **arrays):
    sample = known.drawing(DECODED, edit)(SampleRequest(BATCH, run=run))
    return jax.jit(sample)(PARAMS, KEYS, arrays)


def test_a_code_is_known_where_all_of_its_pixels_are():
    codes = EDITS["inpaint"].enter(PARAMS, {"image": PICTURE, "mask": MASK})
    wanted = np.zeros((BATCH, 3, 4, 1), bool)
    wanted[:, 0, 1:] = True
    np.testing.assert_array_equal(codes["mask"], wanted)
    np.testing.assert_allclose(codes["image"], encode(2.0, PICTURE * MASK), rtol=1e-6)
    tokens = edits.within(lambda params, x0: x0[:, ::2, ::2, 0], SHAPE, edits.replaced(PROCESS))
    codes = tokens["inpaint"].enter({}, {"image": PICTURE, "mask": MASK})
    np.testing.assert_array_equal(codes["mask"], wanted[..., 0])


def test_known_pixels_and_known_codes_come_out():
    """And what a picture has where it is not known says nothing."""
    found = drawn(EDITS["inpaint"], image=PICTURE, mask=MASK)
    np.testing.assert_array_equal(found[MASK > 0.5], PICTURE[MASK > 0.5])
    other = np.where(MASK > 0.5, PICTURE, 0.9)
    np.testing.assert_array_equal(found, drawn(EDITS["inpaint"], image=other, mask=MASK))
    # Beside a known pixel that is pasted stands one of its code, which is that of the picture.
    within = latent.decoded(STAGE, MAKE)(
        SampleRequest(
            BATCH,
            run=edits.replaced(PROCESS)["inpaint"].run(samplers.solve)(
                EDITS["inpaint"].enter(PARAMS, {"image": PICTURE, "mask": MASK})
            ),
        )
    )(PARAMS, KEYS)
    np.testing.assert_allclose(within[:, :2, 2:], decode(2.0, encode(2.0, PICTURE * MASK), {})[:, :2, 2:], rtol=1e-5)
    free = jax.jit(DECODED(SampleRequest(BATCH)))(PARAMS, KEYS)
    assert np.abs(found - free)[:, 4:].max() < 1e-6  # of whose codes nothing is known: here no code hears of another


def test_from_a_picture_by_its_codes():
    """As the chain of codes from the picture's own; of a film each frame is decoded."""
    edit = EDITS["from"].at(0.5)
    found = drawn(edit, image=PICTURE)
    inside = edits.begun(PROCESS, 0.5).run(samplers.solve)({"image": encode(2.0, PICTURE)})
    wanted = decode(2.0, jax.jit(MAKE(SampleRequest(BATCH, run=inside)))({}, KEYS), {})
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    film = drawn(edit, run=lambda *walk: samplers.film(*walk, frames=3), image=PICTURE)
    np.testing.assert_allclose(film.x, found, rtol=1e-5, atol=1e-6)
    assert film.pictures.shape == (3, BATCH, *SHAPE)
    whole = drawn(EDITS["from"].at(1.0), image=PICTURE)
    assert np.abs(whole - found).max() > 0.1
    np.testing.assert_allclose(whole, jax.jit(DECODED(SampleRequest(BATCH)))(PARAMS, KEYS), atol=1e-3)


def test_what_codes_have_no_part_of():
    assert latent.edited(STAGE, edits.projected(PROCESS)).keys() == {"inpaint", "from"}
    assert not latent.edited(STAGE._replace(known=None), edits.replaced(PROCESS))
    for name, edit in EDITS.items():
        assert edit.takes((3, 4, 1))["image"] == SHAPE, name


def test_samples_between_two_pictures_are_those_between_their_codes():
    edit = latent.edited(STAGE, edits.between(SCHEDULE))["between"]
    found = drawn(edit, **edit.lay({"image": PICTURE}, BATCH))
    first, second = (np.repeat(np.asarray(encode(2.0, PICTURE))[i : i + 1], BATCH, axis=0) for i in range(2))
    times, share = timesteps.uniform(STEPS, 1000), jnp.array([0.0, 1.0])
    codes = editing.interpolate(SCHEDULE, times, lambda x_t, t: Gaussian(x_t), first, second, share)
    np.testing.assert_allclose(found, decode(2.0, codes, {}), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.1
    with pytest.raises(InputError, match="--between takes two pictures, not 1"):
        edit.lay({"image": PICTURE[:1]}, BATCH)
    assert edits.between(None) == {}


def test_what_is_not_known_may_be_begun_from():
    """Below strength 1 it depends on what the picture has there, and less so the more noise there is; at 1 not."""
    inpaint = latent.edited(STAGE, edits.on_path(PROCESS))["inpaint"]
    other = np.where(MASK > 0.5, PICTURE, 0.9)

    def moved(edit):
        found, elsewhere = (drawn(edit, image=picture, mask=MASK) for picture in (PICTURE, other))
        np.testing.assert_array_equal(found[MASK > 0.5], PICTURE[MASK > 0.5])
        return np.abs(found - elsewhere)[MASK < 0.5].mean()

    assert moved(inpaint) == moved(inpaint.at(1.0)) == 0
    assert 0.01 < moved(inpaint.at(0.8)) < 0.8 * moved(inpaint.at(0.3))
    for made in (edits.on_path, edits.clean):
        for edit in (made(PROCESS)["inpaint"], made(PROCESS)["inpaint"].at(0.5)):
            with pytest.raises(InputError, match="no film of inpainting by this model"):
                edit.run(samplers.film)
