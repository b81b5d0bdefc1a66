"""unCLIP's and DeepFloyd's pipelines whole: those of diffusers, of the same folders and noise."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (the extra parity)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra parity)")
pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")

import text_tiny as tiny  # noqa: E402
from diffusers.pipelines.deepfloyd_if import (  # noqa: E402
    pipeline_if,
    pipeline_if_img2img,
    pipeline_if_img2img_superresolution,
    pipeline_if_inpainting,
    pipeline_if_inpainting_superresolution,
    pipeline_if_superresolution,
)
from diffusers.pipelines.deprecated.unclip import pipeline_unclip, pipeline_unclip_image_variation, text_proj  # noqa: E402
from diffusers.schedulers import scheduling_ddpm, scheduling_unclip  # noqa: E402
from their_noise import KEYS, PROMPTS, in_double, noise  # noqa: E402

from diffusion_jax.app.known import drawing  # noqa: E402
from diffusion_jax.core.errors import InputError  # noqa: E402
from diffusion_jax.data import images  # noqa: E402
from diffusion_jax.models.encoders.images import prepared  # noqa: E402
from diffusion_jax.pipelines import published  # noqa: E402
from diffusion_jax.training.experiment import SampleRequest  # noqa: E402

NEAR = 2e-3  # of values in [0, 1]: float32 in two libraries, guided, over several chains


FAR = 2e-4  # on average, of values in [0, 1]


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=50 * FAR)
    assert np.abs(found - wanted).mean() < FAR


SIMPLE = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 6,
    "cross_attention_dim": 32,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
}
ENLARGE = {
    "sample_size": 32,
    "in_channels": 6,
    "out_channels": 3,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "add_attention": False,
    "down_block_types": ("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
}


@pytest.fixture(scope="module")
def karlo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("karlo") / "karlo"
    torch.manual_seed(3)
    prior = diffusers.PriorTransformer(2, 16, 2, embedding_dim=24, num_embeddings=tiny.LENGTH)
    project = text_proj.UnCLIPTextProjModel(
        clip_embeddings_dim=24, time_embed_dim=128, cross_attention_dim=32, clip_extra_context_tokens=4
    )
    pipeline = diffusers.UnCLIPPipeline(
        prior=tiny.redrawn(prior),
        decoder=tiny.unet(seed=4, **SIMPLE, class_embed_type="identity", norm_num_groups=32),
        text_encoder=tiny.encoder(tiny.transformers.CLIPTextModelWithProjection, 24),
        tokenizer=tiny.tokenizer("!"),
        text_proj=tiny.redrawn(project),
        super_res_first=tiny.redrawn(diffusers.UNet2DModel(**ENLARGE)),
        super_res_last=tiny.redrawn(diffusers.UNet2DModel(**ENLARGE)),
        prior_scheduler=in_double(
            diffusers.UnCLIPScheduler(
                variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
            )
        ),
        decoder_scheduler=in_double(diffusers.UnCLIPScheduler(variance_type="learned_range")),
        super_res_scheduler=in_double(diffusers.UnCLIPScheduler(variance_type="fixed_small_log")),
    )
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return folder, pipeline


STEPS = {"prior": 3, "decoder": 4, "super_res": 3}
ASKED = {"prior": {"steps": 3}, "super_res": {"steps": 3}}


def test_karlo(karlo, monkeypatch):
    folder, pipeline = karlo
    shapes = {"prior": (24,), "decoder": (16, 16, 3), "super_res": (32, 32, 3)}
    draw = noise(*((name, shapes[name], range(STEPS[name])) for name in STEPS))  # none is drawn at the end
    monkeypatch.setattr(pipeline_unclip, "randn_tensor", draw)
    monkeypatch.setattr(scheduling_unclip, "randn_tensor", draw)
    said = {f"{name}_num_inference_steps": steps for name, steps in STEPS.items()}
    theirs = pipeline(PROMPTS, output_type="np", **said).images

    model = published.diffusers(str(folder), asked=ASKED)
    make = model.samplers["published"](SampleRequest(2, STEPS["decoder"]))
    (cond,) = model.sample_condition(2, {"prompt": np.array(PROMPTS, object)})
    params = model.load()[0]
    with jax.default_matmul_precision("highest"):
        found = np.asarray(jax.jit(make)(params, KEYS, cond)) / 2 + 0.5
    assert found.shape == theirs.shape == (2, 32, 32, 3)
    assert theirs.std() > 0.1
    np.testing.assert_allclose(np.clip(found, 0, 1), theirs, atol=NEAR)


def test_variations_by_karlo(karlo, tmp_path, monkeypatch):
    parts = {name: part for name, part in karlo[1].components.items() if not name.startswith("prior")}
    pipeline = diffusers.UnCLIPImageVariationPipeline(**parts, **tiny.of_pictures())
    pipeline.save_pretrained(tmp_path / "karlo")
    pipeline.set_progress_bar_config(disable=True)
    draw = noise(("decoder", (16, 16, 3), range(STEPS["decoder"])), ("super_res", (32, 32, 3), range(3)))
    monkeypatch.setattr(pipeline_unclip_image_variation, "randn_tensor", draw)
    monkeypatch.setattr(scheduling_unclip, "randn_tensor", draw)
    said = {"decoder_num_inference_steps": STEPS["decoder"], "super_res_num_inference_steps": 3}
    # Pillow's rounding is not ours: theirs is given what ours prepares.
    likes = np.random.default_rng(0).integers(0, 256, (2, 20, 18, 3), np.uint8)
    seen = np.moveaxis(np.asarray(prepared(images.to_float(likes), side=16)), -1, 1)
    wanted = pipeline(image=torch.from_numpy(seen.copy()), output_type="np", **said).images

    model = published.diffusers(str(tmp_path / "karlo"), asked={"super_res": {"steps": 3}})
    make = model.samplers["published"](SampleRequest(2, STEPS["decoder"]))
    draw, params = jax.jit(make), model.load()[0]
    with jax.default_matmul_precision("highest"):
        found, other = (
            np.asarray(draw(params, KEYS, *model.sample_condition(2, {"like": pictures}))) / 2 + 0.5
            for pictures in (likes, likes[::-1])
        )
    np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
    assert wanted.std() > 0.1
    assert np.abs(other - found).max() > 20 * NEAR


def test_stages_are_asked_by_name(karlo):
    folder, _ = karlo
    for asked, said in (
        (
            {"decodr": {"steps": 3}},
            "--stage decodr: this model has no such stage beside its main one; of use are prior",
        ),
        ({"super_res": {"steps": 1}}, "at least 2 steps, one of each of its networks; not 1"),
        ({"super_res": {"guidance_scale": 2.0}}, "the stage super_res takes no --guidance"),
        ({"prior": {"sampler": "best"}}, "the stage prior has no sampler best; choose from published"),
    ):
        with pytest.raises(InputError, match=said):
            published.diffusers(str(folder), asked=asked)


# ---- DeepFloyd's IF.

IF = SIMPLE | {
    "norm_num_groups": 32,
    "encoder_hid_dim": 48,
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 4,
    "cross_attention_norm": "group_norm",
    "act_fn": "gelu",
}
OF_LEVELS = {
    "in_channels": 6,
    "sample_size": 32,
    "class_embed_type": "timestep",
    "time_embedding_act_fn": "gelu",
    "time_embedding_dim": 64,
    "resnet_skip_time_act": True,
    "resnet_out_scale_factor": 1 / 0.7071,
    "mid_block_scale_factor": 1 / 0.7071,
    "only_cross_attention": True,
    "layers_per_block": [1, 2],
}
TABLE = {"beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range", "thresholding": True}


@pytest.fixture(scope="module")
def floyd(tmp_path_factory):
    """Both stages: their folders, and their pipelines."""
    root = tmp_path_factory.mktemp("floyd")
    texts = {"tokenizer": tiny.t5_tokenizer(), "text_encoder": tiny.t5()}
    beside = {
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }
    made = {}
    for name, kind, config, more in (
        ("one", diffusers.IFPipeline, {"sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.95}, {}),
        (
            "two",
            diffusers.IFSuperResolutionPipeline,
            {"dynamic_thresholding_ratio": 0.95},
            {"image_noising_scheduler": 1},
        ),
    ):
        unet = tiny.unet(seed=len(made), **(IF | (OF_LEVELS if more else {})))
        scheduler = in_double(diffusers.DDPMScheduler(**TABLE, **config))
        noising = {part: in_double(diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")) for part in more}
        pipeline = kind(**texts, unet=unet, scheduler=scheduler, **noising, **beside)
        pipeline.save_pretrained(root / name)
        pipeline.set_progress_bar_config(disable=True)
        made[name] = pipeline
    return root, made


def drawn(folder, options, request, arrays=None, edit=lambda model: model.edits["enlarge"], **more):
    """Pictures in [0, 1]."""
    model = published.diffusers(str(folder), **options)
    make = model.samplers["published"]
    if arrays is not None:
        make = drawing(make, edit(model))
    (cond,) = model.sample_condition(2, {"prompt": np.array(PROMPTS, object), **more})
    told = (cond,) if arrays is None else (arrays, cond)
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(make(request))(model.load()[0], KEYS, *told)) / 2 + 0.5


def test_deep_floyd(floyd, monkeypatch):
    root, pipelines = floyd
    small, large = (16, 16, 3), (32, 32, 3)
    draw = noise(
        ("unet", small, range(4)), ("super_res", large, [0]), ("renoise", large, None), ("super_res", large, [1, 2])
    )
    for module in (pipeline_if, pipeline_if_superresolution, scheduling_ddpm):
        monkeypatch.setattr(module, "randn_tensor", draw)
    first = pipelines["one"](PROMPTS, num_inference_steps=4, output_type="pt").images
    theirs = pipelines["two"](PROMPTS, image=first, num_inference_steps=3, noise_level=100, output_type="np").images

    # Bounded by quantiles of themselves, these chains of random networks enlarge rounding: 1e-6 of the small picture
    # becomes 4e-4 of the large one. So the second stage is held to theirs by their small picture.
    one = drawn(root / "one", {}, SampleRequest(2, 4))
    small_picture = np.moveaxis(first.numpy(), 1, -1)
    close(one, small_picture / 2 + 0.5)
    two = drawn(root / "two", {}, SampleRequest(2, 3), {"image": small_picture}, noise_level=np.array([100.0]))
    close(np.clip(two, 0, 1), theirs)
    # Both in one program are the second alone, of the first's picture; and told another level it draws others.
    options = {"upscaler": str(root / "two"), "asked": {"super_res": {"steps": 3}}}
    both = drawn(root / "one", options, SampleRequest(2, 4), noise_level=np.array([100.0]))
    alone = drawn(root / "two", {}, SampleRequest(2, 3), {"image": one * 2 - 1}, noise_level=np.array([100.0]))
    close(alone, both)
    other = drawn(root / "two", {}, SampleRequest(2, 3), {"image": one * 2 - 1})
    assert np.abs(other - both).mean() > 20 * FAR
    with pytest.raises(InputError, match="noise_level 1000: give whole numbers from 0 to 999"):
        drawn(root / "two", {}, SampleRequest(2, 3), {"image": one}, noise_level=np.array([1000.0]))


def shown(name, side):
    """A large picture and a mask, as our edit `name` takes them and as their pipelines do."""
    picture = np.random.default_rng(0).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    paint = np.zeros((2, side, side, 1), np.float32)
    paint[0, :7], paint[1, :, 3:] = 1, 1
    arrays, said = {"image": picture}, {"image": torch.from_numpy(np.moveaxis(picture, -1, 1).copy())}
    if name == "inpaint":
        arrays["mask"], said["mask_image"] = 1 - paint, torch.from_numpy(np.moveaxis(paint, -1, 1).copy())
    return arrays, said


def near(found, wanted, arrays):
    close(np.clip(found, 0, 1), wanted)
    assert wanted.std() > 0.1
    assert np.abs(found - wanted[::-1]).mean() > 20 * FAR  # control: of the other text and picture
    if "mask" in arrays:
        kept = np.where(arrays["mask"] > 0.5, found - (arrays["image"] / 2 + 0.5), 0)
        np.testing.assert_allclose(kept, 0, atol=1e-6)


def begun(kind, module, floyd, stage, folder, monkeypatch, draws):
    """Their pipeline of the parts of a stage; it is saved, and draws our noise."""
    draw = noise(*draws)
    for each in (module, scheduling_ddpm):
        monkeypatch.setattr(each, "randn_tensor", draw)
    pipeline = kind(**floyd[1][stage].components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


KINDS = {
    "from": (pipeline_if_img2img, diffusers.IFImg2ImgPipeline),
    "inpaint": (pipeline_if_inpainting, diffusers.IFInpaintingPipeline),
}
ENLARGING = {
    "from": (pipeline_if_img2img_superresolution, diffusers.IFImg2ImgSuperResolutionPipeline),
    "inpaint": (pipeline_if_inpainting_superresolution, diffusers.IFInpaintingSuperResolutionPipeline),
}
HALF = {"num_inference_steps": 4, "strength": 0.5, "output_type": "np"}  # the last two of four steps


@pytest.mark.parametrize("name", KINDS)
def test_deep_floyd_begins_from_a_picture(floyd, name, monkeypatch, tmp_path):
    """What is kept is there without noise at every step."""
    module, kind = KINDS[name]
    draws = [("unet", (16, 16, 3), range(2))]
    pipeline = begun(kind, module, floyd, "one", tmp_path / "one", monkeypatch, draws)
    arrays, said = shown(name, 16)
    wanted = pipeline(PROMPTS, **said, **HALF, guidance_scale=7.0).images
    found = drawn(tmp_path / "one", {}, SampleRequest(2, 4), arrays, lambda model: model.edits[name].at(0.3))
    near(found, wanted, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENLARGING)
def test_stage_two_begins_from_a_large_picture(floyd, name, monkeypatch, tmp_path):
    """Beside the small one, to which noise is added between the first draw and the others."""
    module, kind = ENLARGING[name]
    large = (32, 32, 3)
    draws = [("super_res", large, [0]), ("renoise", large, None), ("super_res", large, [1])]
    pipeline = begun(kind, module, floyd, "two", tmp_path / "two", monkeypatch, draws)
    arrays, said = shown(name, 32)
    small = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    said |= {"original_image": said["image"], "image": torch.from_numpy(np.moveaxis(small, -1, 1).copy())}
    wanted = pipeline(prompt=PROMPTS, **said, **HALF, noise_level=100, guidance_scale=4.0).images
    arrays["enlarge"] = small
    level = {"noise_level": np.array([100.0])}
    found = drawn(tmp_path / "two", {}, SampleRequest(2, 4), arrays, lambda model: model.edits[name].at(0.3), **level)
    near(found, wanted, arrays)
