"""unCLIP's and DeepFloyd's pipelines whole: those of diffusers, of the same folders and noise."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (the extra parity)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra parity)")
pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")

import text_tiny as tiny  # noqa: E402
from diffusers.pipelines.deprecated.unclip import pipeline_unclip, text_proj  # noqa: E402
from diffusers.schedulers import scheduling_unclip  # noqa: E402

from diffusion_jax.core import rng  # noqa: E402
from diffusion_jax.core.errors import InputError  # noqa: E402
from diffusion_jax.diffusion import stages  # noqa: E402
from diffusion_jax.pipelines import published  # noqa: E402
from diffusion_jax.pretrained.schedulers import scheduler as ours_of  # noqa: E402
from diffusion_jax.training.experiment import SampleRequest  # noqa: E402

PROMPTS = ["a photo of the cat", "the dog, WOW!"]
KEYS = jax.random.split(jax.random.key(0), 2)
NEAR = 2e-3  # of values in [0, 1]: float32 in two libraries, guided, over several chains


def noise(*chains):
    """Our noise as theirs draw it, of chains (stage, shape, steps): the start, and that of all steps but the last."""

    def drawn():
        for name, shape, steps in chains:
            keys = stages.keys_of(name, KEYS)
            for step in range(steps):
                x = jax.vmap(lambda key, shape=shape: rng.flat(jax.random.normal, key, shape))(rng.each(keys, step))
                yield torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())

    queue = drawn()
    return lambda *shape, **how: next(queue)


def in_double(scheduler):
    """Diffusers' own tables in float32 alone move such pictures by 3e-2, where nothing is left of them."""
    table = ours_of.betas(scheduler.config | {"_class_name": type(scheduler).__name__})
    scheduler.betas, scheduler.alphas = torch.from_numpy(table), torch.from_numpy(1 - table)
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    return scheduler


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
    draw = noise(*((name, shapes[name], STEPS[name]) for name in STEPS))
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
