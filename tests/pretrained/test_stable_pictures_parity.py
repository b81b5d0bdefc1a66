"""Stable Diffusion's relatives whole: those of diffusers, of the same folders and noise."""

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (the extra parity)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra parity)")
pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")

import text_tiny as tiny  # noqa: E402
from diffusers.pipelines.latent_consistency_models import pipeline_latent_consistency_text2img  # noqa: E402
from diffusers.pipelines.stable_diffusion import (  # noqa: E402
    pipeline_stable_diffusion,
    pipeline_stable_diffusion_upscale,
    pipeline_stable_unclip,
    pipeline_stable_unclip_img2img,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (  # noqa: E402
    StableUnCLIPImageNormalizer,
)
from diffusers.schedulers import scheduling_ddpm, scheduling_euler_ancestral_discrete, scheduling_lcm  # noqa: E402
from their_noise import KEYS, PROMPTS, in_double, noise  # noqa: E402

from diffusion_jax.app.known import drawing  # noqa: E402
from diffusion_jax.core.errors import InputError  # noqa: E402
from diffusion_jax.data import images  # noqa: E402
from diffusion_jax.models.encoders.images import prepared  # noqa: E402
from diffusion_jax.pipelines import published  # noqa: E402
from diffusion_jax.training.experiment import SampleRequest  # noqa: E402

NEAR = 2e-3  # of values in [0, 1]: float32 in two libraries, guided, over several chains
STEPS = 3
LATENT = (8, 8, 4)
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
BESIDE = {"safety_checker": None, "feature_extractor": None}
PICTURE = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)


class Drawn:
    """Pictures in [0, 1] of `KEYS`, by one program of whatever is told."""

    def __init__(self, folder, edit=None, strength=None, request=(), **opened):
        self.model = published.diffusers(str(folder), **opened)
        self.params = self.model.load()[0]
        make = next(iter(self.model.samplers.values()))
        if edit is not None:
            known = self.model.edits[edit]
            make = drawing(make, known if strength is None else known.at(strength))
        self.draw = jax.jit(make(SampleRequest(2, STEPS, **dict(request))))

    def __call__(self, *arrays, prompt=PROMPTS, negative=None, **told):
        prompts = {} if prompt is None else {"prompt": prompt}
        texts = prompts | ({"negative": negative} if negative else {})
        given = {name: np.array(said, object) for name, said in texts.items()}
        (cond,) = self.model.sample_condition(2, given | told)
        with jax.default_matmul_precision("highest"):
            return np.asarray(self.draw(self.params, KEYS, *arrays, cond)) / 2 + 0.5


def channels_first(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def v_ddim():
    return diffusers.DDIMScheduler(**SCALED, prediction_type="v_prediction", clip_sample=False, steps_offset=1)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("x4") / "x4"
    pipeline = diffusers.StableDiffusionUpscalePipeline(
        vae=tiny.vae(scaling_factor=0.08333),
        text_encoder=tiny.encoder(),
        tokenizer=tiny.tokenizer("!"),
        unet=tiny.unet(in_channels=7, num_class_embeds=1000),
        low_res_scheduler=in_double(diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
        scheduler=v_ddim(),
        **BESIDE,
    )
    pipeline.save_pretrained(folder)
    file = folder / "vae" / "config.json"  # of old it did not say its scale, which is not Stable Diffusion's
    said = json.loads(file.read_text())
    assert said.pop("scaling_factor") == 0.08333
    file.write_text(json.dumps(said))
    pipeline.set_progress_bar_config(disable=True)
    return folder, pipeline


def test_the_x4_upscaler(upscaler, monkeypatch):
    folder, pipeline = upscaler
    monkeypatch.setattr(
        pipeline_stable_diffusion_upscale,
        "randn_tensor",
        noise(*[("renoise", (8, 8, 3), None), ("unet", LATENT, [0])] * 2),
    )
    said = {"num_inference_steps": STEPS, "output_type": "np", "negative_prompt": ["cat", ""]}
    ours = Drawn(folder, "enlarge")
    for level, told in ((20, {}), (300, {"noise_level": np.array([300])})):
        wanted = pipeline(PROMPTS, image=channels_first(PICTURE / 2 + 0.5), noise_level=level, **said).images
        found = ours({"image": PICTURE}, negative=["cat", ""], **told)
        assert found.shape == wanted.shape == (2, 16, 16, 3)
        np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
        assert wanted.std() > 0.05
    # Control: another level, of noise and as it is told.
    other = ours({"image": PICTURE}, negative=["cat", ""])
    assert np.abs(other - found).max() > 20 * NEAR
    with pytest.raises(InputError, match="noise_level 351: give whole numbers from 0 to 350"):
        ours({"image": PICTURE}, noise_level=np.array([351]))


@pytest.fixture(scope="module")
def unclip(tmp_path_factory):
    """Stable unCLIP in small: its folder, and their pipeline of it."""
    folder = tmp_path_factory.mktemp("unclip") / "unclip"
    torch.manual_seed(3)
    karlo = diffusers.UnCLIPScheduler(
        variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
    )
    prior = tiny.redrawn(diffusers.PriorTransformer(2, 16, 2, embedding_dim=24, num_embeddings=tiny.LENGTH))
    pipeline = diffusers.StableUnCLIPPipeline(
        prior_tokenizer=tiny.tokenizer("!"),
        prior_text_encoder=tiny.encoder(tiny.transformers.CLIPTextModelWithProjection, 24, seed=5),
        prior=prior,
        # Their page makes a DDPMScheduler of Karlo's: their pipeline does not tell the other where it steps to.
        prior_scheduler=in_double(diffusers.DDPMScheduler.from_config(karlo.config)),
        **of_vectors(),
    )
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return folder, pipeline


def of_vectors():
    """What both of Stable unCLIP's pipelines have."""
    normalizer = StableUnCLIPImageNormalizer(24)
    with torch.no_grad():
        normalizer.mean.copy_(torch.randn(1, 24))
        normalizer.std.copy_(torch.rand(1, 24) + 0.5)
    return {
        "image_normalizer": normalizer,
        "image_noising_scheduler": in_double(diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
        "tokenizer": tiny.tokenizer("!"),
        "text_encoder": tiny.encoder(),
        "unet": tiny.unet(class_embed_type="projection", projection_class_embeddings_input_dim=48),
        "scheduler": v_ddim(),
        "vae": tiny.vae(),
    }


def test_stable_unclip(unclip, monkeypatch):
    folder, pipeline = unclip
    draw = noise(*[("prior", (24,), range(STEPS)), ("vector", (24,), None), ("unet", LATENT, [0])] * 2)
    for module in (pipeline_stable_unclip, scheduling_ddpm):
        monkeypatch.setattr(module, "randn_tensor", draw)
    said = {"num_inference_steps": STEPS, "prior_num_inference_steps": STEPS, "output_type": "np"}
    ours = Drawn(folder, asked={"prior": {"steps": STEPS}})
    for level, negative in ((0, None), (500, ["the dog"])):
        wanted = pipeline(PROMPTS, noise_level=level, negative_prompt=negative and negative * 2, **said).images
        found = ours(negative=negative, noise_level=np.array([float(level)]))
        np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
        assert wanted.std() > 0.05
    # Control: another level.
    assert np.abs(ours(negative=negative) - found).max() > 20 * NEAR


def test_variations_of_a_picture(tmp_path, monkeypatch):
    pipeline = diffusers.StableUnCLIPImg2ImgPipeline(**tiny.of_pictures(), **of_vectors())
    pipeline.save_pretrained(tmp_path / "like")
    pipeline.set_progress_bar_config(disable=True)
    draw = noise(*[("vector", (24,), None), ("unet", LATENT, [0])] * 2)
    monkeypatch.setattr(pipeline_stable_unclip_img2img, "randn_tensor", draw)
    ours = Drawn(tmp_path / "like")
    with pytest.raises(InputError, match="give --like PICTURE"):
        ours()

    # Of any size. Pillow's rounding is not ours, so theirs is given what ours prepares.
    pictures = np.empty(2, object)
    pictures[:] = [np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8) for size in ((20, 33), (16, 18))]
    seen = [prepared(images.to_float(picture)[None], side=16) for picture in pictures]
    seen = channels_first(np.concatenate(seen))
    for level, prompt in ((0, PROMPTS), (300, None)):
        said = {"num_inference_steps": STEPS, "output_type": "np", "noise_level": level}
        wanted = pipeline(image=seen, prompt=prompt or ["", ""], **said).images
        found = ours(prompt=prompt, like=pictures, noise_level=np.array([float(level)]))
        np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
        assert wanted.std() > 0.05
    # Control: the pictures in the other order.
    other = ours(prompt=None, like=pictures[::-1], noise_level=np.array([300.0]))
    assert np.abs(other - found).max() > 20 * NEAR


def test_few_steps(tmp_path, monkeypatch):
    """A latent consistency model, which is told the scale of guidance; and a turbo model, which takes none."""
    parts = {"vae": tiny.vae(), "text_encoder": tiny.encoder(), "tokenizer": tiny.tokenizer(), **BESIDE}
    consistent = diffusers.LatentConsistencyModelPipeline(
        unet=tiny.unet(time_cond_proj_dim=8),
        scheduler=diffusers.LCMScheduler(**SCALED),
        requires_safety_checker=False,
        **parts,
    )
    ancestral = diffusers.EulerAncestralDiscreteScheduler(**SCALED, timestep_spacing="trailing")
    turbo = diffusers.StableDiffusionPipeline(
        unet=tiny.unet(), scheduler=ancestral, requires_safety_checker=False, **parts
    )
    for number, (pipeline, guidance, modules) in enumerate(
        (
            (consistent, 3.0, (pipeline_latent_consistency_text2img, scheduling_lcm)),
            (turbo, 1.0, (pipeline_stable_diffusion, scheduling_euler_ancestral_discrete)),
        )
    ):
        pipeline.save_pretrained(tmp_path / str(number))
        pipeline.set_progress_bar_config(disable=True)
        draw = noise(("unet", LATENT, range(STEPS + 1)))
        for module in modules:
            monkeypatch.setattr(module, "randn_tensor", draw)
        said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": guidance}
        wanted = pipeline(PROMPTS, **said).images
        ours = Drawn(tmp_path / str(number), request={"guidance_scale": guidance})
        found = ours()
        np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
        assert wanted.std() > 0.05
        assert np.abs(ours(prompt=PROMPTS[::-1]) - found).max() > 20 * NEAR
