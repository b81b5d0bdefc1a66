"""Pictures of texts, by whole pipelines: those of diffusers, of the same folder and noise."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (the extra parity)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra parity)")
pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")

import text_tiny as tiny  # noqa: E402

from diffusion_jax.core import rng  # noqa: E402
from diffusion_jax.diffusion import stages  # noqa: E402
from diffusion_jax.pipelines import first_stages, published  # noqa: E402
from diffusion_jax.training.experiment import SampleRequest  # noqa: E402

PROMPTS = ["a photo of the cat", "the dog, WOW!"]
KEYS = jax.random.split(jax.random.key(0), 2)
STEPS = 4
NEAR = 2e-3  # of values in [0, 1]: float32 in two libraries, over a chain


def ours(folder, given, num=2, opened=None, **options):
    """Pictures in [0, 1], of `KEYS`."""
    model = published.diffusers(str(folder), **(opened or {}))
    make = next(iter(model.samplers.values()))(SampleRequest(num, STEPS, **options))
    (cond,) = model.sample_condition(num, given)
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(make)(model.load()[0], KEYS[:num], cond)) / 2 + 0.5


def latents(shape=(8, 8, 4), name=first_stages.CHAIN):
    """The noise that the chain starts from, as diffusers takes it."""
    keys = rng.each(stages.keys_of(name, KEYS), 0)
    drawn = jax.vmap(lambda key: rng.flat(jax.random.normal, key, shape))(keys)
    return torch.from_numpy(np.asarray(drawn).transpose(0, 3, 1, 2).copy())


def texts(prompts=PROMPTS, **more):
    return {"prompt": np.array(prompts, object)} | {name: np.array(x, object) for name, x in more.items()}


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    """Stable Diffusion 1 in small: its folder, and their pipeline of it."""
    folder = tmp_path_factory.mktemp("stable") / "sd"
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    )
    parts = {"tokenizer": tiny.tokenizer(), "text_encoder": tiny.encoder(), "unet": tiny.unet(), "vae": tiny.vae()}
    beside = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = diffusers.StableDiffusionPipeline(**parts, scheduler=scheduler, **beside)
    pipeline.save_pretrained(folder)
    return folder, quiet(pipeline)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_stable_diffusion(stable, guidance):
    folder, pipeline = stable
    said = {"num_inference_steps": STEPS, "output_type": "np", "latents": latents(), "guidance_scale": guidance}
    theirs = pipeline(PROMPTS, negative_prompt=["cat", ""], **said).images
    found = ours(folder, texts(negative=["cat", ""]), guidance_scale=guidance)
    np.testing.assert_allclose(np.clip(found, 0, 1), theirs, atol=NEAR)
    assert theirs.std() > 0.1
    # Control: the texts in the other order.
    other = ours(folder, texts(PROMPTS[::-1], negative=["cat", ""]), guidance_scale=guidance)
    assert np.abs(other - found).max() > 20 * NEAR


def test_rescaled_guidance(stable):
    folder, pipeline = stable
    said = {"num_inference_steps": STEPS, "output_type": "np", "latents": latents(), "guidance_scale": 5.0}
    theirs = pipeline(PROMPTS, guidance_rescale=0.7, **said).images
    found = ours(folder, texts(), guidance_scale=5.0, guidance_rescale=0.7)
    np.testing.assert_allclose(np.clip(found, 0, 1), theirs, atol=NEAR)
