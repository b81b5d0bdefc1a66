"""Pipelines with a first stage, whole, against diffusers': one folder, one noise, the same pictures as uint8."""

import jax
import numpy as np
import published_tiny as tiny
import pytest
from first_stages_tiny import TINY

from diffusion_jax.core import rng
from diffusion_jax.diffusion import stages
from diffusion_jax.pipelines import first_stages, published, reading
from diffusion_jax.pretrained.families import dit as dit_names
from diffusion_jax.training.experiment import SampleRequest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

from diffusers.pipelines.deprecated.latent_diffusion_uncond import pipeline_latent_diffusion_uncond  # noqa: E402
from diffusers.pipelines.dit import pipeline_dit  # noqa: E402
from diffusers.schedulers import scheduling_ddpm  # noqa: E402

pytestmark = pytest.mark.slow

STEPS = 3
# The test compiles more than it computes.
HASTY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
KEYS = jax.random.split(jax.random.key(0), 2)
OF_CHAIN = stages.keys_of(first_stages.CHAIN, KEYS)
OFF = 2e-3  # share of values that may be one level off: those that a rounding error takes over the border
KL = TINY["kl"] | {"scaling_factor": 0.4}
VQ = TINY["vq"] | {"latent_channels": 3, "vq_embed_dim": 3, "in_channels": 3, "out_channels": 3}


def ours(model, *cond, guidance=None):
    """uint8 [2, H, W, C] of the scheduler's own sampler."""
    make = model.samplers["published"](SampleRequest(2, steps=STEPS, guidance_scale=guidance))
    params, _, _ = model.load()
    with jax.default_matmul_precision("highest"):
        drawn = jax.jit(make).lower(params, KEYS, *cond).compile(HASTY)
    return model.view.images(drawn(params, KEYS, *cond))


def noise(channels):
    """What our prior draws for the same keys, as torch has it."""
    draw = jax.vmap(lambda key: rng.flat(jax.random.normal, key, (8, 8, channels)))
    return torch.from_numpy(np.asarray(draw(rng.each(OF_CHAIN, 0))).transpose(0, 3, 1, 2).copy())


def off(found, theirs):
    """By how many levels of 0..255 each value is off."""
    theirs = np.round(theirs * 255).astype(int)  # as they make their pictures
    assert found.shape == theirs.shape
    assert len(np.unique(theirs)) > 50
    return np.abs(found - theirs)


def check_equal(found, theirs):
    """Level for level, but for a few that are one off."""
    levels = off(found, theirs)
    assert levels.max() <= 1
    assert (levels > 0).mean() < OFF


def test_dit(tmp_path, monkeypatch):
    """Without guidance: theirs guides all channels, where the official script leaves the last alone, as ours does."""
    folder = tiny.make_pipeline(tmp_path, "dit", KL, num_embeds_ada_norm=1000)
    pipeline = diffusers.DiTPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr(pipeline_dit, "randn_tensor", lambda **how: noise(4))
    said = {"num_inference_steps": STEPS, "output_type": "np"}
    theirs = pipeline([207, 4], guidance_scale=1.0, **said).images

    build = reading.loading.build

    def told_likewise(*arguments):  # the time, as diffusers' network tells it
        network = build(*arguments)
        return network._replace(model=network.model.clone(encode_time=dit_names.diffusers_time))

    monkeypatch.setattr(reading.loading, "build", told_likewise)
    model = published.diffusers(str(folder))
    assert model.shape == (16, 16, 3)
    found = ours(model, {"label": np.array([207, 4])}, guidance=1.0)
    check_equal(found, theirs)
    # Control: another scale, of which the decoder's normalisations leave little.
    pipeline.vae.register_to_config(scaling_factor=0.18215)
    other = pipeline([207, 4], guidance_scale=1.0, **said).images
    assert (off(found, other) > 0).mean() > 50 * OFF


def test_latent_diffusion(tmp_path, monkeypatch):
    """Three channels of VQ's latents are no pixels; and they are not scaled, unless the config says it.

    diffusers' pipeline divides by the default of its class, 0.18215, where a config says nothing. Latent diffusion
    multiplied by nothing, so ours is right: it is theirs where the config says 1.
    """
    folder = tiny.make_pipeline(tmp_path, "ddpm", VQ, at="vqvae")
    model = published.diffusers(str(folder))
    assert model.shape == (16, 16, 3)
    monkeypatch.setattr(pipeline_latent_diffusion_uncond, "randn_tensor", lambda *args, **how: noise(3))

    def theirs():
        keys = iter(rng.each(OF_CHAIN, step) for step in range(1, STEPS + 1))
        draw = jax.vmap(lambda key: rng.flat(jax.random.normal, key, (8, 8, 3)))

        def given(*args, **how):
            return torch.from_numpy(np.asarray(draw(next(keys))).transpose(0, 3, 1, 2).copy())

        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", given)
        pipeline = diffusers.LDMPipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(batch_size=2, num_inference_steps=STEPS, output_type="np").images

    found = ours(model)
    assert (off(found, theirs()) > 0).mean() > 50 * OFF  # the trap
    tiny.written(tmp_path / "vqvae", VQ | {"scaling_factor": 1.0}, seed=1)
    check_equal(found, theirs())


def test_stable_diffusion(tmp_path):
    """Its loop, with given embeddings, and its decoder."""
    folder = tiny.make_pipeline(tmp_path, "text", KL)
    network = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae").eval()
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(STEPS)
    tokens, null = np.random.default_rng(0).normal(size=(2, 2, 3, 12)).astype(np.float32)
    told, x = torch.from_numpy(np.concatenate([null, tokens])), noise(4)
    with torch.no_grad():
        for t in scheduler.timesteps:
            without, with_ = network(torch.cat([x, x]), t, told).sample.chunk(2)
            x = scheduler.step(without + 3.0 * (with_ - without), t, x).prev_sample
        theirs = vae.decode(x / vae.config.scaling_factor).sample
    theirs = (theirs / 2 + 0.5).clamp(0, 1).numpy().transpose(0, 2, 3, 1)
    found = ours(published.diffusers(str(folder)), {"tokens": tokens, "null_tokens": null}, guidance=3.0)
    check_equal(found, theirs)
