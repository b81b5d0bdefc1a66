"""Whole chains of published models against diffusers: the same folder, noise and scheduler, image for image.

diffusers reads the folders that this package has written. Its loops are written out below, as its pipelines do
them, from its own networks and schedulers.
"""

import json

import jax
import numpy as np
import published_tiny as tiny
import pytest

from diffusion_jax import pretrained
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.pipelines import published, reading
from diffusion_jax.pretrained.families import dit as dit_names
from diffusion_jax.training.experiment import SampleRequest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

from diffusers.pipelines.ddpm import pipeline_ddpm  # noqa: E402
from diffusers.schedulers import scheduling_ddpm, scheduling_lcm  # noqa: E402
from their_source import scale_embedding  # noqa: E402

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
STEPS = 4
KEYS = jax.random.split(jax.random.key(0), 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    for name in tiny.CONFIGS:
        tiny.make(root, name)
    tiny.make(root / "pndm", "ddpm", _class_name="PNDMScheduler", skip_prk_steps=True, steps_offset=1)
    return root


def ours(model, cond, steps, guidance=None):
    """The result [2, H, W, C] of the scheduler's sampler."""
    make = model.samplers["published"](SampleRequest(2, steps=steps, guidance_scale=guidance))
    params, _, _ = model.load()
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(make)(params, KEYS, *cond))


def noise(shape, scale=1.0):
    """What our prior draws for the same keys, as torch has it."""
    keys = rng.each(KEYS, 0)
    x = jax.vmap(lambda key: rng.flat(jax.random.normal, key, shape))(keys)
    return to_torch(scale * np.asarray(x))


def to_torch(x):
    return torch.from_numpy(np.asarray(x, np.float32).transpose(0, 3, 1, 2).copy())


def distance(a, theirs):
    b = theirs.numpy().transpose(0, 2, 3, 1)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def scheduler(folder, steps):
    config = json.loads((folder / "scheduler_config.json").read_text())
    found = getattr(diffusers, config["_class_name"]).from_config(config)
    found.set_timesteps(steps)
    return found


def chain(found, x, predict):
    with torch.no_grad():
        for t in found.timesteps:
            x = found.step(predict(found.scale_model_input(x, t), t), t, x).prev_sample
    return x


def test_an_unconditional_model(root):
    """With the scheduler of Stable Diffusion 1; the others below have DDIM's."""
    folder = root / "pndm" / "ddpm"
    network = diffusers.UNet2DModel.from_pretrained(folder).eval()
    theirs = chain(scheduler(folder, STEPS), noise((8, 8, 3)), lambda x, t: network(x, t).sample)
    found = ours(published.diffusers(str(folder)), (), STEPS)
    assert distance(found, theirs) < TOLERANCE
    # Control: one step more is another image.
    assert distance(ours(published.diffusers(str(folder)), (), STEPS + 1), theirs) > 100 * TOLERANCE


def test_a_saved_model_is_a_pipeline(root, tmp_path, monkeypatch):
    """What `save` writes draws the same images here and by diffusers' own loop, given our noise."""
    pretrained.load(root / "ddpm").save(tmp_path / "copy")
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "copy")
    keys = iter(rng.each(KEYS, step) for step in range(STEPS + 1))

    def given(shape, **how):
        drawn = jax.vmap(lambda key: rng.flat(jax.random.normal, key, (8, 8, 3)))(next(keys))
        return to_torch(drawn)

    for module in (pipeline_ddpm, scheduling_ddpm):
        monkeypatch.setattr(module, "randn_tensor", given)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(batch_size=2, num_inference_steps=STEPS, output_type="np").images
    found = ours(published.diffusers(str(tmp_path / "copy")), (), STEPS)
    assert np.abs(np.clip(found / 2 + 0.5, 0, 1) - theirs).max() < TOLERANCE
    assert np.unique(theirs).size > 100


def test_one_step_of_a_consistency_model(root):
    folder = root / "consistency"
    network = diffusers.UNet2DModel.from_pretrained(folder).eval()
    label = np.array([4, 1])
    steps = scheduler(folder, 1)
    theirs = chain(
        steps, noise((8, 8, 3), 80.0), lambda x, t: network(x, t, class_labels=torch.from_numpy(label)).sample
    )
    found = ours(published.diffusers(str(folder)), ({"label": label},), 1)
    assert distance(found, theirs) < TOLERANCE


def test_a_text_model_with_guidance_and_a_controlnet(root):
    folder, draw = root / "text", np.random.default_rng(0)
    tokens = draw.normal(size=(2, 3, 12)).astype(np.float32)
    null = np.zeros((2, 3, 12), np.float32)
    hint = draw.uniform(size=(2, 16, 16, 3)).astype(np.float32)
    network = diffusers.UNet2DConditionModel.from_pretrained(folder).eval()
    steering = diffusers.ControlNetModel.from_pretrained(root / "controlnet").eval()

    def guided(scale, control):
        def predict(x, t):
            both, told = torch.cat([x, x]), torch.from_numpy(np.concatenate([null, tokens]))
            more = {}
            if control:
                seen = torch.cat([to_torch(hint)] * 2)
                down, middle = steering(both, t, told, controlnet_cond=seen, return_dict=False)
                more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            without, with_ = network(both, t, told, **more).sample.chunk(2)
            return without + scale * (with_ - without)

        return predict

    cond = {"tokens": tokens, "null_tokens": null}
    plain = chain(scheduler(folder, STEPS), noise((8, 8, 4)), guided(3.0, False))
    model = published.diffusers(str(folder))
    assert distance(ours(model, (cond,), STEPS, 3.0), plain) < TOLERANCE

    steered = chain(scheduler(folder, STEPS), noise((8, 8, 4)), guided(3.0, True))
    model = published.diffusers(str(folder), controlnet=str(root / "controlnet"))
    assert distance(ours(model, (cond | {"hint": hint},), STEPS, 3.0), steered) < TOLERANCE
    # Control: without the hint it is another picture.
    assert distance(ours(published.diffusers(str(folder)), (cond,), STEPS, 3.0), steered) > 100 * TOLERANCE


def test_a_latent_consistency_model(root, monkeypatch):
    """Told the scale of guidance, once each step: no unconditional half. The noise between its steps is ours."""
    folder, steps = root / "latent", 3
    tokens = np.random.default_rng(0).normal(size=(2, 3, 12)).astype(np.float32)
    network = diffusers.UNet2DConditionModel.from_pretrained(folder).eval()
    draw = jax.vmap(lambda key: rng.flat(jax.random.normal, key, (8, 8, 4)))
    model = published.diffusers(str(folder))

    def theirs(scale):
        keys = iter(rng.each(KEYS, step) for step in range(1, steps + 1))
        monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *args, **kwargs: to_torch(draw(next(keys))))
        told = scale_embedding(torch.full((2,), scale - 1.0), network.config.time_cond_proj_dim)

        def predict(x, t):
            return network(x, t, torch.from_numpy(tokens), timestep_cond=told).sample

        return chain(scheduler(folder, steps), noise((8, 8, 4)), predict)

    cond = ({"tokens": tokens},)
    found, usual = ours(model, cond, steps, 3.0), theirs(8.5)
    assert distance(found, theirs(3.0)) < TOLERANCE
    assert distance(ours(model, cond, steps), usual) < TOLERANCE
    assert distance(found, usual) > 10 * TOLERANCE  # control: another scale
    with pytest.raises(InputError, match="a ControlNet for a network that is told the scale of guidance"):
        published.diffusers(str(folder), controlnet=str(root / "controlnet"))


def test_a_network_that_sees_more_channels(root):
    """As Stable Diffusion's inpainting: a mask and a masked image beside the latents, for both halves of guidance."""
    folder, draw = root / "inpainting", np.random.default_rng(0)
    tokens, null = draw.normal(size=(2, 2, 3, 12)).astype(np.float32)
    beside, label = draw.normal(size=(2, 8, 8, 5)).astype(np.float32), np.array([4, 0])
    network = diffusers.UNet2DConditionModel.from_pretrained(folder).eval()

    def predict(x, t):
        seen = torch.cat([torch.cat([x, to_torch(beside)], dim=1)] * 2)
        told = torch.from_numpy(np.concatenate([null, tokens]))
        without, with_ = network(seen, t, told, class_labels=torch.from_numpy(np.tile(label, 2))).sample.chunk(2)
        return without + 3.0 * (with_ - without)

    theirs = chain(scheduler(folder, STEPS), noise((8, 8, 4)), predict)
    model = published.diffusers(str(folder))
    given = {"tokens": tokens, "null_tokens": null, "label": label}
    with pytest.raises(InputError, match=r"sees 5 channels .* with beside, float \[N, 8, 8, 5\]"):
        model.sample_condition(2, given)
    cond = model.sample_condition(2, given | {"beside": beside})
    assert distance(ours(model, cond, STEPS, 3.0), theirs) < TOLERANCE


def test_dit_with_guidance_on_three_channels(root, monkeypatch):
    """As in the official script; the time told as diffusers' network tells it, for this comparison."""
    folder = root / "dit"
    network = diffusers.DiTTransformer2DModel.from_pretrained(folder).eval()
    label = np.array([1, 4])

    def predict(x, t):
        told = torch.from_numpy(np.concatenate([label, np.full(2, 5)]))
        time = torch.full((4,), int(t))
        out = network(torch.cat([x, x]), time, class_labels=told).sample[:, :4]
        with_, without = out.chunk(2)
        return torch.cat([(without + 2.5 * (with_ - without))[:, :3], with_[:, 3:]], dim=1)

    theirs = chain(scheduler(folder, STEPS), noise((8, 8, 4)), predict)
    build = reading.loading.build

    def told_likewise(*arguments):
        network = build(*arguments)
        model = network.model.clone(encode_time=dit_names.diffusers_time)
        return network._replace(model=model)

    monkeypatch.setattr(reading.loading, "build", told_likewise)
    found = ours(published.diffusers(str(folder)), ({"label": label},), STEPS, 2.5)
    assert distance(found, theirs) < TOLERANCE
