"""Pictures of texts, by whole pipelines: those of diffusers, of the same folder and noise."""

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (the extra parity)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra parity)")
pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")

import text_tiny as tiny  # noqa: E402

from diffusion_jax import evaluate, sample  # noqa: E402
from diffusion_jax.app import cli  # noqa: E402
from diffusion_jax.app.known import drawing  # noqa: E402
from diffusion_jax.core import rng  # noqa: E402
from diffusion_jax.core.errors import InputError  # noqa: E402
from diffusion_jax.diffusion import stages  # noqa: E402
from diffusion_jax.pipelines import first_stages, published, whole  # noqa: E402
from diffusion_jax.pretrained.lora import Lora  # noqa: E402
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


def skipped(folder, given, layers=1):
    return ours(folder, given, opened={"clip_skip": layers}, guidance_scale=5.0)


def test_layers_of_clip_that_prompts_leave_out(stable, monkeypatch):
    """The state before them, normalised; what withholds the text is that of all layers."""
    folder, pipeline = stable
    # Since 5.6 of transformers it is where diffusers does not look for it.
    norm = SimpleNamespace(final_layer_norm=pipeline.text_encoder.final_layer_norm)
    monkeypatch.setattr(pipeline.text_encoder, "text_model", norm, raising=False)
    said = {"num_inference_steps": STEPS, "output_type": "np", "latents": latents(), "guidance_scale": 5.0}
    wanted = pipeline(PROMPTS, negative_prompt=PROMPTS[::-1], clip_skip=1, **said).images
    found = skipped(folder, texts(negative=PROMPTS[::-1]))
    np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
    # Control: with no layer left out the prompts say something else, and what withholds them the same.
    few, all_of_them = (
        published.diffusers(str(folder), clip_skip=layers).sample_condition(2, texts(negative=PROMPTS[::-1]))[0]
        for layers in (1, 0)
    )
    assert np.abs(few["tokens"] - all_of_them["tokens"]).max() > 0.1
    np.testing.assert_allclose(few["null_tokens"], all_of_them["null_tokens"], atol=1e-5)
    with pytest.raises(InputError, match=r"--clip-skip 3: text_encoder/ of .* has 3 layers; give at most 2"):
        published.diffusers(str(folder), clip_skip=3)
    with pytest.raises(InputError, match="unet is a network by itself, which leaves no layers of CLIP out"):
        published.diffusers(str(folder / "unet"), clip_skip=1)


@pytest.mark.rare
def test_rescaled_guidance(stable):
    folder, pipeline = stable
    said = {"num_inference_steps": STEPS, "output_type": "np", "latents": latents(), "guidance_scale": 5.0}
    theirs = pipeline(PROMPTS, guidance_rescale=0.7, **said).images
    found = ours(folder, texts(), guidance_scale=5.0, guidance_rescale=0.7)
    np.testing.assert_allclose(np.clip(found, 0, 1), theirs, atol=NEAR)


def test_in_bfloat16(stable):
    """As far from float32 as diffusers in bfloat16 is, within a factor of 1.5; all three networks are kept in it."""
    folder, pipeline = stable
    half = quiet(diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16))
    said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 1.0}
    single = pipeline(PROMPTS, latents=latents(), **said).images
    theirs = half(PROMPTS, latents=latents().bfloat16(), **said).images
    model = published.diffusers(str(folder), dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.load()[0])} == {jnp.dtype(jnp.bfloat16)}
    found = ours(folder, texts(), opened={"dtype": jnp.bfloat16}, guidance_scale=1.0)
    assert found.dtype == np.float32
    error = np.abs(np.clip(found, 0, 1) - single).mean()
    assert 1e-5 < error < 1.5 * np.abs(theirs - single).mean() < 0.1 * single.std()
    with pytest.raises(InputError, match="float32 or bfloat16, not float16"):
        published.diffusers(str(folder), dtype=np.float16)


def test_a_lora_of_all_its_networks(stable, tmp_path):
    """Added at 0.7 to the U-Net and the encoder, as they fuse it; one of another network is refused at once."""
    pytest.importorskip("peft", reason="diffusers merges LoRA by peft: see the extra 'parity'")
    library = pytest.importorskip("safetensors.torch", reason="parity needs safetensors: see the extra 'parity'")
    folder, pipeline = stable
    draw, arrays = torch.Generator().manual_seed(3), {}
    for part, end in (("unet", "attn2.to_k"), ("text_encoder", "self_attn.q_proj")):
        for name, layer in getattr(pipeline, part).named_modules():
            if name.endswith(end):
                rows, columns = layer.weight.shape
                arrays[f"{part}.{name}.lora_A.weight"] = torch.randn(2, columns, generator=draw)
                arrays[f"{part}.{name}.lora_B.weight"] = torch.randn(rows, 2, generator=draw)
    path = tmp_path / "style.safetensors"
    library.save_file(arrays, path)
    said = {"num_inference_steps": STEPS, "output_type": "np", "latents": latents(), "guidance_scale": 3.0}
    pipeline.load_lora_weights(path)
    pipeline.fuse_lora(lora_scale=0.7)
    theirs = pipeline(PROMPTS, **said).images
    pipeline.unfuse_lora()
    pipeline.unload_lora_weights()

    added, plain = (published.diffusers(str(folder), loras=loras) for loras in ([Lora(path, 0.7)], []))
    chain = jax.jit(added.samplers["published"](SampleRequest(2, STEPS, guidance_scale=3.0)))

    def drawn(network, encoder):
        with jax.default_matmul_precision("highest"):
            (cond,) = encoder.sample_condition(2, texts())
            return np.clip(np.asarray(chain(network.load()[0], KEYS, cond)) / 2 + 0.5, 0, 1)

    np.testing.assert_allclose(drawn(added, added), theirs, atol=NEAR)
    # Controls: without that of one of them.
    assert min(np.abs(drawn(*few) - theirs).max() for few in ((added, plain), (plain, added))) > 10 * NEAR
    for name, message in (
        ("text_encoder_2.x", "is of text_encoder_2; this pipeline has"),
        ("unet.x", "another network"),
    ):
        library.save_file({f"{name}.lora_A.weight": torch.ones(2, 4)}, path)
        with pytest.raises(InputError, match=message):
            published.diffusers(str(folder), loras=[Lora(path)])


PICTURE = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)


def known(folder, name, arrays, given, strength=None, **opened):
    """Pictures in [0, 1] of which something is known, as the command line draws them."""
    model = published.diffusers(str(folder), **opened)
    edit = model.edits[name] if strength is None else model.edits[name].at(strength)
    make = drawing(next(iter(model.samplers.values())), edit)(SampleRequest(2, STEPS, guidance_scale=5.0))
    (cond,) = model.sample_condition(2, given)
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(make)(model.load()[0], KEYS, arrays, cond)) / 2 + 0.5


@pytest.fixture
def certain(monkeypatch):
    """Their encoder's mean for its draw, and our noise for theirs."""
    of_code = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    monkeypatch.setattr(of_code, "sample", lambda code, generator=None: code.mode())
    for folder, module in (("", "img2img"), ("", "inpaint"), ("_xl", "xl_img2img"), ("_xl", "xl_inpaint")):
        path = f"diffusers.pipelines.stable_diffusion{folder}.pipeline_stable_diffusion_{module}"
        monkeypatch.setattr(f"{path}.randn_tensor", lambda *shape, **how: latents())


def channels_first(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def test_a_picture_by_a_text(stable, certain):
    folder, pipeline = stable
    theirs = quiet(diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False))
    said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 5.0}
    wanted = theirs(PROMPTS, image=channels_first(PICTURE / 2 + 0.5), strength=0.5, **said).images
    # Half of their steps are the last two, from index 251 of 1000 on: a time of .252.
    found = known(folder, "from", {"image": PICTURE}, texts(), strength=0.26)
    np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)


@pytest.fixture(scope="module")
def painting(stable, tmp_path_factory):
    folder = tmp_path_factory.mktemp("painting") / "sd"
    parts = stable[1].components | {"unet": tiny.unet(in_channels=9)}
    pipeline = diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    pipeline.save_pretrained(folder)
    return folder, quiet(pipeline)


def test_a_part_of_a_picture_by_a_text(painting, certain):
    folder, pipeline = painting
    paint = np.zeros((2, 16, 16, 1), np.float32)
    paint[0, :6], paint[1, :, 4:] = 1, 1
    said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 5.0, "height": 16, "width": 16}
    said |= {"mask_image": channels_first(paint), "latents": latents(), "strength": 1.0}
    wanted = pipeline(PROMPTS, image=channels_first(PICTURE), **said).images
    found = known(folder, "inpaint", {"image": PICTURE, "mask": 1 - paint}, texts())
    # Theirs decodes the known part too; ours is the picture there.
    drawn = np.where(paint > 0.5, np.clip(found, 0, 1) - wanted, 0)
    np.testing.assert_allclose(drawn, 0, atol=NEAR)
    np.testing.assert_allclose(np.where(paint > 0.5, 0, found - (PICTURE / 2 + 0.5)), 0, atol=1e-6)
    # Without a picture nothing is known of it.
    grey = pipeline(
        PROMPTS, image=torch.zeros(2, 3, 16, 16), **(said | {"mask_image": torch.ones(2, 1, 16, 16)})
    ).images
    np.testing.assert_allclose(np.clip(ours(folder, texts(), guidance_scale=5.0), 0, 1), grey, atol=NEAR)


PAINT = np.zeros((2, 16, 16, 1), np.float32)
PAINT[0, :6], PAINT[1, :, 4:] = 1, 1


def test_a_part_of_a_picture_by_a_sampler_with_memory(stable, certain, tmp_path):
    table = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    parts = stable[1].components | {"scheduler": diffusers.UniPCMultistepScheduler(**table)}
    pipeline = quiet(diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False))
    pipeline.save_pretrained(tmp_path / "sd")
    said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 5.0, "height": 16, "width": 16}
    said |= {"mask_image": channels_first(PAINT), "strength": 1.0}
    wanted = pipeline(PROMPTS, image=channels_first(np.where(PAINT > 0.5, 0, PICTURE)), **said).images
    found = known(tmp_path / "sd", "inpaint", {"image": PICTURE, "mask": 1 - PAINT}, texts())
    hole = PAINT[..., 0] > 0.5
    np.testing.assert_allclose(np.clip(found, 0, 1)[hole], wanted[hole], atol=NEAR)
    # Control: nothing is put back.
    alone = np.clip(ours(tmp_path / "sd", texts(), guidance_scale=5.0), 0, 1)
    assert np.abs(alone - wanted)[hole].max() > 20 * NEAR


@pytest.mark.rare
def test_a_controlnet_and_a_text(stable, tmp_path):
    folder, pipeline = stable
    torch.manual_seed(5)
    net = tiny.redrawn(
        diffusers.ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(8, 16))
    )
    net.save_pretrained(tmp_path / "control")
    parts = pipeline.components | {"controlnet": net}
    theirs = quiet(diffusers.StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False))
    hint = np.random.default_rng(1).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    said = {"num_inference_steps": STEPS, "output_type": "np", "latents": latents(), "guidance_scale": 5.0}
    wanted = theirs(PROMPTS, image=channels_first(hint), **said).images
    given = texts() | {"hint": hint}
    found = ours(folder, given, opened={"controlnet": str(tmp_path / "control")}, guidance_scale=5.0)
    np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)


XL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True}
XL |= {"cross_attention_dim": 56, "projection_class_embeddings_input_dim": 24 + 6 * 8}
XL |= {"transformer_layers_per_block": (2, 1), "attention_head_dim": (2, 4)}
EULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading"}


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    """Stable Diffusion XL in small, with its own scheduler's file."""
    folder = tmp_path_factory.mktemp("xl") / "sdxl"
    second = tiny.encoder(tiny.transformers.CLIPTextModelWithProjection, 24, seed=7, hidden_act="gelu")
    parts = {"tokenizer": tiny.tokenizer(), "tokenizer_2": tiny.tokenizer("!"), "vae": tiny.vae()}
    parts |= {"text_encoder": tiny.encoder(), "text_encoder_2": second, "unet": tiny.unet(**XL)}
    scheduler = diffusers.EulerDiscreteScheduler(**EULER, steps_offset=1)
    pipeline = diffusers.StableDiffusionXLPipeline(**parts, scheduler=scheduler, add_watermarker=False)
    pipeline.save_pretrained(folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_max_value": 1.0, "clip_sample": False}))
    return folder, quiet(pipeline)


@pytest.mark.parametrize("negative", [None, pytest.param(["the dog"], marks=pytest.mark.rare)])
def test_xl(xl, negative):
    folder, pipeline = xl
    said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 5.0, "latents": latents()}
    theirs = pipeline(PROMPTS, negative_prompt=negative and negative * 2, **said).images
    given = texts() if negative is None else texts(negative=negative)
    found = ours(folder, given, guidance_scale=5.0)
    np.testing.assert_allclose(np.clip(found, 0, 1), theirs, atol=NEAR)


def test_layers_of_both_encoders_of_xl(xl):
    folder, pipeline = xl
    said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 5.0, "latents": latents()}
    wanted = pipeline(PROMPTS, negative_prompt=PROMPTS[::-1], clip_skip=1, **said).images
    found = skipped(folder, texts(negative=PROMPTS[::-1]))
    np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
    with pytest.raises(InputError, match=r"--clip-skip 2: text_encoder/ of .* has 3 layers; give at most 1"):
        published.diffusers(str(folder), clip_skip=2)


@pytest.mark.parametrize(("channels", "strength"), [(4, 1.0), (4, 0.5), (9, 0.5)])
def test_a_part_of_a_picture_by_xl(xl, channels, strength, certain, tmp_path):
    """Four channels have the picture put back, with the noise of the start; nine are shown it."""
    parts = xl[1].components | ({} if channels == 4 else {"unet": tiny.unet(in_channels=9, **XL)})
    pipeline = quiet(diffusers.StableDiffusionXLInpaintPipeline(**parts, add_watermarker=False))
    pipeline.save_pretrained(tmp_path / "sdxl")
    # From noise alone what lies in the hole must not matter; theirs sees it there, so it is grey.
    picture = np.where(PAINT > 0.5, 0, PICTURE) if strength == 1 else PICTURE
    said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 5.0, "height": 16, "width": 16}
    said |= {"mask_image": channels_first(PAINT), "strength": strength}
    wanted = pipeline(PROMPTS, image=channels_first(picture), **said).images
    # Half of their steps are the last two, from the time .252 on.
    begun = None if strength == 1 else 0.3
    found = known(tmp_path / "sdxl", "inpaint", {"image": PICTURE, "mask": 1 - PAINT}, texts(), begun)
    np.testing.assert_allclose(np.where(PAINT > 0.5, np.clip(found, 0, 1) - wanted, 0), 0, atol=NEAR)
    np.testing.assert_allclose(np.where(PAINT > 0.5, 0, found - (PICTURE / 2 + 0.5)), 0, atol=1e-6)
    assert wanted[PAINT[..., 0] > 0.5].std() > 0.1


@pytest.fixture(scope="module")
def refiner(xl, tmp_path_factory):
    """XL's refiner in small: it reads the second encoder alone, and is told how well pictures look."""
    folder = tmp_path_factory.mktemp("refiner") / "refiner"
    config = XL | {"cross_attention_dim": 24, "projection_class_embeddings_input_dim": 24 + 5 * 8}
    parts = {name: xl[1].components[name] for name in ("tokenizer_2", "text_encoder_2", "vae", "scheduler")}
    parts |= {"tokenizer": None, "text_encoder": None, "unet": tiny.unet(seed=9, **config)}
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(
        **parts, requires_aesthetics_score=True, add_watermarker=False
    )
    pipeline.save_pretrained(folder)
    return folder, quiet(pipeline)


def test_xl_refiner(refiner, certain):
    folder, pipeline = refiner
    said = {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 5.0, "strength": 0.5}
    wanted = pipeline(PROMPTS, image=channels_first(PICTURE / 2 + 0.5), **said).images
    # Half of their steps are the last two, from the time .252 on.
    found = known(folder, "from", {"image": PICTURE}, texts(), strength=0.3)
    np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
    assert wanted.std() > 0.1


def test_what_a_refiner_says_of_its_scores_is_what_it_has(refiner, tmp_path):
    shutil.copytree(refiner[0], tmp_path / "refiner")
    file = tmp_path / "refiner" / "model_index.json"
    said = json.loads(file.read_text())
    assert said["requires_aesthetics_score"] is True
    for wrong, message in (
        (False, "requires_aesthetics_score = false .* make it true"),
        ("yes", "= yes; true or false"),
    ):
        file.write_text(json.dumps(said | {"requires_aesthetics_score": wrong}))
        with pytest.raises(InputError, match=message):
            published.diffusers(str(tmp_path / "refiner"))


def test_xl_and_its_refiner(xl, refiner, certain, monkeypatch):
    module = "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img"
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *shape, **how: latents(name="refiner"))
    said = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "negative_prompt": ["the dog"] * 2}
    first = xl[1](PROMPTS, output_type="latent", latents=latents(), **said).images
    said |= {"guidance_scale": 3.0, "strength": 0.5}
    wanted = refiner[1](PROMPTS, image=first, output_type="np", **said).images
    asked = {"refiner": {"steps": STEPS, "guidance_scale": 3.0}}
    opened = {"refiner": str(refiner[0]), "asked": asked}
    found = ours(xl[0], texts(negative=["the dog"]), opened=opened, guidance_scale=5.0)
    np.testing.assert_allclose(np.clip(found, 0, 1), wanted, atol=NEAR)
    # Control: the first alone draws another picture.
    with torch.no_grad():
        alone = xl[1].vae.decode(first / xl[1].vae.config.scaling_factor).sample.numpy().transpose(0, 2, 3, 1)
    assert np.abs(np.clip(alone / 2 + 0.5, 0, 1) - wanted).max() > 20 * NEAR


@pytest.mark.parametrize(("name", "negative", "skip"), [("stable", ["the dog"], 1), ("xl", None, 0)])
def test_encoders_in_the_program_and_apart(name, negative, skip, request):
    """One pure function of ids draws what encoders draw that run before it; zeros withhold XL's texts."""
    folder, _ = request.getfixturevalue(name)
    model = published.diffusers(str(folder), clip_skip=skip)
    draw = whole.sample_fn(model, SampleRequest(2, 2, guidance_scale=5.0))
    together = jax.jit(draw)(whole.read(model), KEYS, model.encoding.ids(PROMPTS, negative))
    given = texts() if negative is None else texts(negative=negative)
    (cond,) = model.sample_condition(2, given)
    make = model.samplers["published"](SampleRequest(2, 2, guidance_scale=5.0))
    np.testing.assert_allclose(together, jax.jit(make)(model.load()[0], KEYS, cond), atol=1e-3)


def run(*arguments):
    try:
        cli.run(sample.main, [str(a) for a in arguments])
    except SystemExit as end:
        return end.code
    return 0


def test_the_command_line(stable, tmp_path, monkeypatch, capsys):
    """A file of texts, one of which is cut; sample i is of line i, and alone it is the same picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("the cat\n" + "the " * 30 + "\n")
    drawing = ("--pretrained", stable[0], "--steps", 2, "--guidance", 1, "--quiet")
    assert run(*drawing, "--prompts", "texts.txt", "--out", "both") == 0
    assert f"more than {tiny.LENGTH} tokens is cut; not read is: 'the the" in capsys.readouterr().err
    asked = json.loads((tmp_path / "both" / "asked.json").read_text())
    assert asked["prompt"] == ["the cat", "the " * 30]
    both = np.load("both/samples.npz")["images"]
    assert both.shape == (2, 16, 16, 3)
    assert run(*drawing, "--prompt", "the cat") == 0
    (kept,) = (tmp_path / "samples" / "sd").iterdir()
    assert kept.name == "published_steps-2_guidance-1.0_prompt-the-cat"
    alone = np.load(kept / "samples.npz")["images"]
    assert np.abs(alone[0].astype(int) - both[0]).max() <= 1


@pytest.mark.slow
def test_pictures_of_texts_are_measured(stable, tmp_path, monkeypatch, capsys):
    """Image i is of text i, as `sample` draws it; other texts get a folder of their own, the same go on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mean.py").write_text(
        "from diffusion_jax.evaluation import Extractor\n"
        "def extractor():\n"
        "    return Extractor(lambda x: {'features': x.mean((1, 2)) / 255.0}, 'mean')\n"
    )
    np.savez("theirs.npz", images=np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8))
    # Whole paths: a process reads a file of texts once, and other tests have files of such names.
    captions, others = tmp_path / "captions.txt", tmp_path / "others.txt"
    for name, lines in ((captions, PROMPTS), (others, PROMPTS[::-1])):
        name.write_text("\n".join(lines) + "\n")
    drawing = ("--pretrained", stable[0], "--steps", 2, "--negative", "cat", "--guidance", 3, "--num", 5)
    measuring = (*drawing, "--batch", 5, "--extractor", "mean.py", "--reference", "theirs.npz")

    def measured(*texts):
        cli.run(evaluate.main, [str(a) for a in (*measuring, *texts)])
        assert len(list(tmp_path.rglob("evaluation.json"))) == len(list(tmp_path.rglob("images_*.npz")))
        return {path.parent.name: np.load(path)["images"] for path in tmp_path.rglob("images_*.npz")}

    first = measured("--prompts", captions)
    ((name, found),) = first.items()
    assert run(*drawing, "--prompts", captions, "--quiet", "--out", "drawn") == 0
    np.testing.assert_array_equal(found, np.load("drawn/samples.npz")["images"])
    capsys.readouterr()
    assert measured("--prompt", *PROMPTS).keys() == first.keys()  # the same texts: nothing is drawn
    both = measured("--prompts", others)
    (other,) = both.keys() - first.keys()
    assert (both[other] != found).any()
    subject = json.loads(next(tmp_path.rglob("evaluation.json")).read_text())["subject"]["told"]
    assert subject["prompt"].startswith("2, sha256 ")
    assert subject["negative"].startswith("1, sha256 ")
    for options, said in (
        (("--pretrained", stable[0], "--num", 0, "--prompt", "a"), "--prompt: of images that are drawn"),
        (("--images", "theirs.npz", "--prompt", "a"), "--prompt: of drawing, and --images are there already"),
        (measuring, "--negative says what pictures should not show; give --prompt"),
    ):
        with pytest.raises(SystemExit):
            cli.run(evaluate.main, [str(a) for a in (*options, "--reference", "theirs.npz")])
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "draws what a text says: give --prompt"),
        (("--negative", "a dog"), "give --prompt with what they should"),
        (("--prompt", "a" * 10_001), "has 10001 characters; give at most 10000"),
        (("--prompts", "none.txt"), "--prompts none.txt cannot be read: No such file"),
        (("--prompts", "empty.txt"), "--prompts empty.txt has no lines"),
        (("--prompt", "a", "--stage", "prior.steps=3"), "it is one chain: give --steps"),
        (("--prompt", "a", "--stage", "prior.step=3"), "give STAGE.OPTION=VALUE"),
        (("--prompt", "a", "--upscaler", "x"), "is of DeepFloyd's IF, and"),
        (("--prompt", "a", "--condition", "tokens.npz"), "--prompt and --condition with tokens are different texts"),
    ],
)
def test_a_mistake_gets_one_line(stable, options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    np.savez("tokens.npz", tokens=np.zeros((1, 3, 32)))
    assert run("--pretrained", stable[0], *options) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "samples").exists()


def test_folders_that_are_not_whole(stable, tmp_path, capsys):
    def damaged(name, damage):
        folder = tmp_path / name
        shutil.copytree(stable[0], folder)
        damage(folder)
        assert run("--pretrained", folder, "--prompt", "a cat") == 2
        return capsys.readouterr().err

    def another(file, old, new):
        return lambda folder: (folder / file).write_text((folder / file).read_text().replace(old, new))

    assert "has no folder tokenizer/" in damaged("missing", lambda folder: shutil.rmtree(folder / "tokenizer"))
    config = "text_encoder/config.json"
    wrong = damaged("other", another(config, '"vocab_size": 520', '"vocab_size": 510'))
    assert "/tokenizer: the tokenizer has 520 pieces and the encoder knows 510" in wrong
    kind = damaged("kind", another("model_index.json", '"StableDiffusionPipeline"', '"WeirdPipeline"'))
    assert "is a WeirdPipeline, whose encoders are not known; give --condition FILE.npz with tokens" in kind
    assert run("--pretrained", stable[0] / "unet", "--prompt", "a cat") == 2
    assert "one network without encoders of texts" in capsys.readouterr().err


def test_the_pages_python_and_its_commands(stable, monkeypatch, tmp_path):
    """docs/how_to/text.md, with a tiny folder in place of a published one; commands as far as a missing folder."""
    page = (Path(__file__).parents[2] / "docs" / "how_to" / "text.md").read_text()
    of_folders, of_stages = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(of_folders.replace("stable-diffusion-v1-5", str(stable[0])).replace("steps=30", "steps=2"), names)
    assert names["images"].shape == (2, 16, 16, 3)
    exec(of_stages, names)
    assert names["vectors"].shape == (3, 4)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("a cat\n")
    commands = re.findall(r"^python -m diffusion_jax.sample (.*)$", page, re.MULTILINE)
    assert len(commands) == 12
    for command in commands:
        assert run(*shlex.split(command)) == 2  # no such folder: every option was known
