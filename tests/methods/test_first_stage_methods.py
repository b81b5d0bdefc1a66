"""First stages of latent diffusion: what trains them, what is measured of them, and what is refused."""

import hashlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import distortions
from diffusion_jax.autoencoding.codes import Code
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods import perceptual, pixels
from diffusion_jax.methods.autoencoders import adversarial, first_stage_kl, first_stage_vq, surveys
from diffusion_jax.models.judges import lpips
from diffusion_jax.pretrained import entries
from diffusion_jax.pretrained.families import lpips as published

pytestmark = pytest.mark.slow

KEYS = jax.random.split(jax.random.key(0, impl="threefry2x32"), 3)
X = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)


def tiny(page, start=0):
    """A page's config on digits, with small networks, and its data."""
    config = adversarial.with_discriminator(page.default_config(), start, halvings=1)
    config.discriminator.update(features=4, groups=2)
    config.model.update(channels=4, groups=2, middle_attention=False)
    config.train.update(batch_size=8, steps_per_call=1, warmup_steps=0)
    config.log.update(every=0, sample_every=0, checkpoint_every=0)
    return config, pixels.data(config, sources.digits)


def brightness(x, y, context):
    """A distance in place of LPIPS."""
    return (x.mean((1, 2, 3)) - y.mean((1, 2, 3))) ** 2


SEEN = adversarial.ERRORS._replace(compare=lambda compare: distortions.perceived(compare, brightness, 0.3))


def redrawn(method):
    """Parameters of which none is 0."""
    shapes, random = jax.eval_shape(method.init, jax.random.key(0)), np.random.default_rng(0)
    return jax.tree.map(lambda x: random.normal(size=x.shape, scale=0.2).astype(np.float32), shapes)


def test_drawn_latents_cost_sums():
    """LDM's loss: the sum over entries of |x - x^| + LPIPS, and a summed rate; of -log p, a constant more."""
    config, data = tiny(first_stage_kl)
    config.model.multipliers = (1,)
    method = first_stage_kl.method(config, data, judgement=SEEN)

    @jax.jit
    def found(params):
        loss, info = method.loss(KEYS, params, X, Context((), 0))
        # The loss draws its codes by keys of its own.
        code = method.code(params, jax.vmap(lambda key: jax.random.split(key, 3)[1])(KEYS), X)
        q = method.halves.encode(params, X)
        return loss, info, method.halves.decode(params, code.z), q.mean, jnp.asarray(q.var)

    loss, info, made, mean, var = found(redrawn(method))
    apart = 0.3 * np.square(X.mean((1, 2, 3)) - made.mean((1, 2, 3)))
    errors = (np.abs(X - made) + apart[:, None, None, None] + np.log(2)).sum((1, 2, 3))
    rate = 0.5 * (mean**2 + var - 1 - np.log(var)).sum((1, 2, 3))
    np.testing.assert_allclose(loss, errors + config.rate.beta * rate, rtol=1e-5)
    np.testing.assert_allclose(info["rate"], rate, rtol=1e-4)
    assert set(info) == {"distortion", "lpips", "rate"}


def test_quantised_latents_cost_means():
    """And a first stage's halves, tokens and reconstruction are of one codebook."""
    config, data = tiny(first_stage_vq)
    config.model.update(codes=7, multipliers=(1,))
    method = first_stage_vq.method(config, data, judgement=SEEN)

    @jax.jit
    def found(params):
        code = method.code(params, KEYS, X)
        z = method.halves.encode(params, X).mean
        loss, _ = method.loss(KEYS, params, X, Context((), 0))
        made = method.decode(params, code.z).mean, method.halves.decode(params, z)
        return loss, z, params["codebook"], code.kept, made, method.tokens.decoded(params, code.kept), code.z

    loss, z, codebook, kept, (made, again), looked_up, passed = found(redrawn(method))
    assert z.shape == (3, 8, 8, 3)
    assert codebook.shape == (7, 3)
    distances = ((z[..., None, :] - codebook) ** 2).sum(-1)
    np.testing.assert_array_equal(kept, distances.argmin(-1))
    np.testing.assert_allclose(passed, codebook[kept], atol=1e-6)
    np.testing.assert_allclose(looked_up, passed, atol=1e-6)
    np.testing.assert_allclose(made, again, atol=1e-5)
    apart = 0.3 * np.square(X.mean((1, 2, 3)) - made.mean((1, 2, 3)))
    quantised = ((z - codebook[kept]) ** 2).mean((1, 2, 3))
    expected = np.abs(X - made).mean((1, 2, 3)) + np.log(2) + apart + 1.25 * quantised
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_first_stage_and_its_discriminator_in_every_mode(x64):
    """Of float64, and where rank promotion is forbidden; what is logged is of each example."""
    config, data = tiny(first_stage_vq)
    method = first_stage_vq.method(config, data, judgement=adversarial.patches(config, data))
    with jax.numpy_rank_promotion("raise"):
        params = jax.eval_shape(method.init, jax.random.key(0))
        x = jnp.asarray(X, jnp.float64)
        loss, info = jax.eval_shape(lambda params: method.loss(KEYS, params, x, Context((), 0)), params)
    assert {"discriminator", "generator", "weight", "distortion", "rate"} <= set(info)
    assert {leaf.shape for leaf in (loss, *info.values())} == {(3,)}
    assert method.optimizer(config.train).observed == ("balance",)


def rebuilt(params, keys, x):
    return Code(x, None, None, x)


def test_likeness_is_that_of_pictures():
    """One level too dark; half of the range too dark in one pixel; beyond white, which no picture shows; equal."""
    x = np.full((4, 2, 2, 1), 1.0, np.float32)
    made = x.copy()
    made[0] -= 2 / 255
    made[1, 0, 0] = 0.0
    made[2] = 5.0
    survey = surveys.likeness(rebuilt, lambda params, z: Gaussian(jnp.asarray(made)))
    found = survey.each({}, KEYS, jnp.asarray(x))
    error = np.array([1 / 255**2, (127 / 255) ** 2 / 4, 0, 0])
    np.testing.assert_allclose(found["MSE of pixels in [0, 1]"], error, rtol=1e-5)
    decibels = -10 * np.log10(np.maximum(error, 1 / 255**2 / 4))
    np.testing.assert_allclose(found["PSNR, dB"], decibels, rtol=1e-5)


def test_latents_are_measured_over_the_whole_set():
    survey, z = surveys.latents(rebuilt), np.random.default_rng(2).normal(3, 2, (6, 2, 2, 3))
    parts = [survey.each({}, KEYS, jnp.asarray(part)) for part in np.split(z, 2)]
    found = survey.summary({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    assert found == pytest.approx({"latents, mean": z.mean(), "latents, deviation": z.std()}, rel=1e-5)


# ---- LPIPS's files.


NARROW = lpips.Trunk((lpips.Stage(lpips.unpooled, (lpips.Conv(0, 64),)),), least=2)


def weights(folder, heads=1.0):
    """A file of both parts of an LPIPS of a narrow trunk, under torchvision's kind of name."""
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), published.template(NARROW))
    params["lin0"] = np.full(params["lin0"].shape, heads, np.float32)
    entries.write(params, published.table(params), folder, {})
    return folder / "diffusion_pytorch_model.safetensors"


def test_lpips_is_part_of_the_loss_and_is_measured(tmp_path):
    path = str(weights(tmp_path))
    config, data = tiny(first_stage_kl)
    adversarial.with_lpips(config)
    config.lpips.update(network=path, heads=path)
    distance, hold = perceptual.named(config, data, NARROW, perceptual.as_it_is)
    judgement = adversarial.ERRORS._replace(held=hold, seen=distance)
    assert {"trained", "lpips"} == set(judgement.whole({"trained": 1}, hold))
    (survey,) = judgement.surveys(rebuilt, lambda params, z: Gaussian(z[::-1]))
    assert not judgement._replace(seen=None).surveys(rebuilt, None)
    held = hold()
    found = survey.each(held, KEYS, X)
    expected = distance(X[::-1], X, Context((), held=held))
    np.testing.assert_allclose(found["LPIPS"], expected, rtol=1e-6)
    assert expected[0] > 1e-3
    assert expected[1] == 0


def test_a_run_without_lpips_says_so_in_a_line(capsys):
    config, data = tiny(first_stage_kl)
    judgement = adversarial.perceived(adversarial.with_lpips(config), data)
    assert judgement.held() == {}
    said = capsys.readouterr().err
    assert said.startswith("trains without LPIPS; ")
    assert said.count("\n") == 1


def test_files_are_what_they_are_called(tmp_path):
    path = weights(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wrong = tmp_path / f"vgg16-{(int(digest[:8], 16) + 1) % 16**8:08x}.pth"
    shutil.copy(path, wrong)
    with pytest.raises(InputError, match=rf"{wrong.name} is damaged or another file: .* begins with {digest[:8]}"):
        perceptual.load(str(wrong), str(path), NARROW)
    (tmp_path / "negative").mkdir()
    negative = weights(tmp_path / "negative", heads=-1.0)
    with pytest.raises(InputError, match="has a negative weight in lin0"):
        perceptual.load(str(path), str(negative), NARROW)
    assert perceptual.load(str(path), str(path), NARROW)  # control


def test_too_many_halvings_are_refused_before_anything_is_made():
    config, data = tiny(first_stage_kl)
    config.discriminator.halvings = 2
    with pytest.raises(InputError, match=r"8x8 leave nothing to a discriminator of 2 halvings"):
        adversarial.patches(config, data)
