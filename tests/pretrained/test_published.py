"""Published models from the command line: every kind draws, is told what it should be, and refuses the rest."""

import json
import re
from pathlib import Path

import first_stages_tiny as first
import jax
import jax.numpy as jnp
import numpy as np
import published_tiny as tiny
import pytest
from flax import traverse_util

from diffusion_jax import images, pretrained, sample
from diffusion_jax.app import cli
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.pipelines import published
from diffusion_jax.pretrained.families import openai_flags
from diffusion_jax.pretrained.formats import files
from diffusion_jax.training.experiment import SampleRequest

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    for name in tiny.CONFIGS:
        tiny.make(root, name)
    np.savez(root / "text.npz", tokens=RNG.normal(size=(2, 3, 12)), null_tokens=np.zeros((1, 3, 12)))
    np.savez(root / "alone.npz", tokens=RNG.normal(size=(2, 3, 12)))
    np.savez(root / "uneven.npz", tokens=RNG.normal(size=(2, 3, 12)), null_tokens=np.zeros((1, 4, 12)))
    np.savez(
        root / "hint.npz",
        tokens=RNG.normal(size=(2, 3, 12)),
        null_tokens=np.zeros((1, 3, 12)),
        hint=RNG.uniform(size=(2, 16, 16, 3)),
    )
    return root


def run(*arguments):
    try:
        cli.run(sample.main, [str(a) for a in arguments])
    except SystemExit as end:
        return end.code
    return 0


def draw(folder, out, *options):
    assert run("--pretrained", folder, "--num", 2, "--steps", 2, "--out", out, *options) == 0
    return np.load(out / "samples.npz")


KINDS = {
    "ddpm": ([], "images", (2, 8, 8, 3)),
    "consistency": (["--label", "3,4"], "images", (2, 8, 8, 3)),
    "dit": (["--label", "1", "--guidance", "2"], "latents", (2, 8, 8, 4)),
    "latent": (["--condition", "{root}/alone.npz", "--guidance", "6"], "latents", (2, 8, 8, 4)),
    "text": (["--condition", "{root}/text.npz", "--size", "4x8"], "latents", (2, 4, 8, 4)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_draws(root, name, tmp_path):
    """From the folder that `Pretrained.save` wrote: that both draw the same is tested below, of one kind."""
    options, array, shape = KINDS[name]
    pretrained.load(str(root / name)).save(tmp_path / "copy")
    found = draw(tmp_path / "copy", tmp_path, *(option.format(root=root) for option in options))[array]
    assert found.shape == shape
    assert len(np.unique(found)) > 10
    assert (tmp_path / "grid.png").exists()
    if array == "latents":
        assert np.isfinite(found).all()


@pytest.mark.exhaustive
def test_a_controlnet_steers(root, tmp_path):
    plain = draw(root / "text", tmp_path / "a", "--condition", root / "text.npz")["latents"]
    both = ("--controlnet", root / "controlnet", "--condition", root / "hint.npz")
    steered = draw(root / "text", tmp_path / "b", *both)["latents"]
    assert steered.shape == plain.shape
    assert np.abs(steered - plain).max() > 1e-2


@pytest.mark.exhaustive
def test_samplers_are_the_schedulers_and_others(root, tmp_path):
    ddim = draw(root / "ddpm", tmp_path / "a", "--sampler", "ddim")["images"]
    pretrained.load(str(root / "ddpm")).save(tmp_path / "copy")
    same = draw(tmp_path / "copy", tmp_path / "b", "--sampler", "ddim", "--eta", 0)["images"]
    np.testing.assert_array_equal(ddim, same)
    published_ = draw(root / "ddpm", tmp_path / "c")["images"]
    assert (published_ != ddim).any()  # DDPM's, with noise


def test_a_file_of_chains_adds_samplers_to_a_published_model(root, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from diffusion_jax.diffusion import samplers\n"
        "from diffusion_jax.methods.compose import Chain\n"
        "def chains(model):\n"
        "    ddim = samplers.ddim(model.schedule, 0.0, *model.transforms)\n"
        "    return {'again': lambda steps=2: Chain(ddim, model.grid(steps))}\n"
    )
    mine = ("--chains", tmp_path / "mine.py", "--sampler", "again")
    again = draw(root / "ddpm", tmp_path / "a", *mine)["images"]
    np.testing.assert_array_equal(again, draw(root / "ddpm", tmp_path / "b", "--sampler", "ddim")["images"])


def test_the_default_folder_and_steps(root, tmp_path, monkeypatch):
    """A consistency model takes one step by itself; samples go to samples/MODEL/SAMPLER."""
    monkeypatch.chdir(tmp_path)
    assert run("--pretrained", root / "consistency", "--num", 2) == 0
    assert (tmp_path / "samples" / "consistency" / "published_num-2" / "grid.png").exists()


def test_the_pages_python(root, tmp_path, monkeypatch):
    """Its lines on published models, with this folder for theirs: what is saved is what was read, bit for bit."""
    readme = (Path(__file__).parents[2] / "docs" / "how_to" / "published.md").read_text()
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "pretrained.load" in code]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace("google/ddpm-cifar10-32", str(root / "ddpm")), names)
    again = pretrained.load("copy")
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(names["model"].params), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- Latents that a first stage decodes.

VQ = first.TINY["vq"] | {"vq_embed_dim": 3, "in_channels": 3, "out_channels": 3}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """Pipelines with a first stage: DiT's, whose pictures are twice as large, and latent diffusion's with VQ."""
    root = tmp_path_factory.mktemp("pipelines")
    for name, made, config, at in (("dit", "dit", first.TINY["tiny"], "vae"), ("ldm", "flat", VQ, "vqvae")):
        (root / name).mkdir()
        tiny.make_pipeline(root / name, made, config, at)
    tiny.written(root / "kl", first.TINY["kl"])
    return root


def test_latents_are_drawn_as_pictures(pipelines, tmp_path):
    """By the first stage of the pipeline, whose three channels are no pixels."""
    found = draw(pipelines / "ldm", tmp_path, "--size", "8x16")["images"]
    assert found.shape == (2, 8, 16, 3)
    assert len(np.unique(found)) > 50


def test_which_first_stage(root, pipelines):
    """That of the pipeline, also where its network is named; or a given one. Elsewhere latents stay latents."""
    assert published.diffusers(str(pipelines / "ldm" / "unet")).shape == (16, 16, 3)
    assert published.diffusers(str(root / "text"), size="8x16").shape == (8, 16, 4)
    given = published.diffusers(str(root / "text"), size="8x16", first_stage=str(pipelines / "kl"))
    assert given.shape == (8, 16, 3)
    assert given.view.images is not None  # `evaluate` takes them
    assert list(given.edits) == ["inpaint", "from", "between"]
    (pipelines / "ldm" / "model_index.json").unlink()
    assert published.diffusers(str(pipelines / "ldm" / "unet")).shape == (8, 8, 3)  # a folder of its own


def test_a_part_of_a_picture_is_kept_in_latents(pipelines, tmp_path):
    """Known pixels come out as they are; and steps of the chain are filmed as pictures, with them."""
    picture = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    images.save_png(tmp_path / "picture.png", picture)
    images.save_png(tmp_path / "mask.png", np.repeat([[[255]] * 16, [[0]] * 16], [7, 9], axis=0).astype(np.uint8))
    known = ("--inpaint", tmp_path / "picture.png", "--mask", tmp_path / "mask.png")
    found = draw(pipelines / "dit", tmp_path / "a", *known, "--label", "3", "--sampler", "ddim")["images"]
    np.testing.assert_array_equal(found[:, :7], picture[None, :7].repeat(2, 0))
    assert np.abs(found[:, 7:].astype(int) - picture[7:]).mean() > 10


MISTAKES = {
    "two first stages": (
        ["--pretrained", "{pipelines}/dit", "--first-stage", "{pipelines}/kl"],
        "has a first stage of its own; leave --first-stage",
    ),
    "latents of others": (
        ["--pretrained", "{root}/ddpm", "--first-stage", "{pipelines}/kl"],
        "decodes 4 channels, and the network draws 3; give the one with which it was trained",
    ),
    "a size of no latents": (
        ["--pretrained", "{pipelines}/dit", "--size", "17x32"],
        "--size 17x32: a latent is 2 pixels wide; give its multiples, such as 16x32",
    ),
    "a first stage alone": (
        ["--pretrained", "{pipelines}/kl", "--size", "8x8"],
        "draws without a chain and takes no --steps",
    ),
    "a first stage that is none": (
        ["--pretrained", "{root}/text", "--first-stage", "{root}/ddpm"],
        "first stage of class 'UNet2DModel' is not known",
    ),
    "a network for a ControlNet": (
        ["--pretrained", "{root}/text", "--controlnet", "{root}/ddpm"],
        "ddpm is a 'UNet2DModel', no ControlNet",
    ),
    "no folder": (["--pretrained", "nowhere"], "neither a folder nor a name on the hub"),
    "a label beyond": (["--pretrained", "{root}/dit", "--label", "6"], "there is no label 6"),
    "a label too many": (["--pretrained", "{root}/consistency", "--label", "5"], "no label 5: they run from 0 to 4"),
    "eta": (
        ["--pretrained", "{root}/ddpm", "--eta", "0.5"],
        "the sampler published takes no --eta; add --sampler ddim",
    ),
    "flags forgotten": (["--pretrained", "a b/model.pt"], "a b/model.pt is a file of weights alone, as OpenAI's"),
    "flags and a size": (["--pretrained", "x.pt", "--flags", "", "--size", "8x8"], "--size is of diffusers' folders"),
    "a step": (["--pretrained", "{root}/ddpm", "--step", "3"], "--step is of a run's"),
    "no text": (["--pretrained", "{root}/text"], "is told an encoded text: --condition FILE.npz with tokens"),
    "a null text that is not read": (
        ["--pretrained", "{root}/latent", "--condition", "{root}/text.npz"],
        "takes no condition 'null_tokens', only tokens",
    ),
    "texts of two lengths": (
        ["--pretrained", "{root}/text", "--condition", "{root}/uneven.npz"],
        "tokens are 3 to a text and null_tokens 4",
    ),
    "no hint": (
        ["--pretrained", "{root}/text", "--controlnet", "{root}/controlnet", "--condition", "{root}/text.npz"],
        "is told a hint",
    ),
    "a controlnet alone": (["--pretrained", "{root}/controlnet"], "no scheduler_config.json"),
    "guidance without labels": (
        ["--pretrained", "{root}/ddpm", "--guidance", "2"],
        "no sampler of this model takes --guidance",
    ),
    "size": (["--pretrained", "{root}/ddpm", "--size", "8"], "give height and width, such as 32x32"),
    "size in other digits": (["--pretrained", "{root}/ddpm", "--size", "8x\u00b2"], "give height and width"),
    "odd size": (["--pretrained", "{root}/ddpm", "--size", "9x8"], "must be multiples of 2"),
    "lora of no file": (
        ["--pretrained", "{root}/ddpm", "--lora", "no.safetensors:2"],
        "there is no file no.safetensors",
    ),
    "lora of no unet": (
        ["--pretrained", "{root}/dit", "--lora", "{root}/text.npz"],
        "has no unet that a LoRA changes",
    ),
    "sampler": (["--pretrained", "{root}/ddpm", "--sampler", "heun"], "choose from published, ddim"),
    "both": (["--pretrained", "{root}/ddpm", "--workdir", "x"], "not allowed with"),
}


def test_tables_that_do_not_take_fifty_steps(root):
    """Without --steps as many are taken as fit, whatever the table's length."""
    folder = tiny.make(root / "short", "ddpm", _class_name="DDIMScheduler", num_train_timesteps=70)
    made = published.diffusers(str(folder)).samplers
    assert list(made) == ["published", "ddim", "dpmpp_2m", "ancestral", "plms", *BETWEEN]
    for name, make in made.items():
        make(SampleRequest(1))
        if name not in BETWEEN[1:]:  # those that look between the entries take any number
            with pytest.raises(InputError, match="100"):
                make(SampleRequest(1, steps=100))


BETWEEN = ["dpmpp_sde", "dpm_fast", "dpm_adaptive"]


@pytest.mark.exhaustive
def test_samplers_that_look_between_the_entries(root):
    """They solve the same ODE as others do at the entries. Control: another start."""
    model = published.diffusers(str(root / "ddpm"))
    params, keys = model.load()[0], rng.per_example(rng.root(0), np.arange(2))

    def drawn(name, steps=None):
        return np.asarray(jax.jit(model.samplers[name](SampleRequest(2, steps=steps)))(params, keys))

    many = drawn("dpmpp_2m", 50)
    assert np.abs(drawn("dpm_fast", 60) - many).mean() < 0.02 < 0.2 < np.abs(many[::-1] - many).mean()
    for name in ("dpmpp_sde", "dpm_adaptive"):
        jax.eval_shape(model.samplers[name](SampleRequest(2)), params, keys)


@pytest.mark.exhaustive
def test_a_network_in_fewer_bits(root):
    """It draws what it draws in float32, to the roundings of its products. Control: another seed."""
    keys = rng.per_example(rng.root(0), np.arange(4))

    def drawn(dtype):
        model = published.diffusers(str(root / "ddpm"), dtype=dtype)
        params, make = model.load()[0], model.samplers["ddim"](SampleRequest(2, steps=2))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
        return [np.asarray(jax.jit(make)(params, some)) for some in (keys[:2], keys[2:])]

    (single, other), (found, _) = drawn(np.float32), drawn(jnp.bfloat16)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - single).max() < 0.1 < np.abs(other - single).max()
    kept = published.diffusers(str(root / "ddpm"), dtype=None).load()[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {np.dtype(np.float32)}


def test_a_model_that_is_told_levels(root):
    """NCSN++: its data is in [0, 1], it takes all of its levels, and another scheduler's steps it does not take."""
    model = published.diffusers(str(tiny.make(root / "levels", "ncsnpp")))
    assert list(model.samplers) == ["published", "ddim", "dpmpp_2m", "ancestral", "plms", *BETWEEN]
    grey = np.full((1, 4, 4, 3), 0.5, np.float32)
    np.testing.assert_array_equal(model.view.images(grey), 128)
    params, keys = model.load()[0], rng.per_example(rng.root(0), np.arange(2))
    assert jax.eval_shape(model.samplers["published"](SampleRequest(2)), params, keys).shape == (2, 4, 4, 3)
    tiny.make(root / "levels", "ncsnpp", _class_name="DDPMScheduler", sigma_max=None)
    with pytest.raises(InputError, match=r"is told noise levels .*and DDPMScheduler tells steps"):
        published.diffusers(str(root / "levels" / "ncsnpp"))


def test_plms_is_offered_where_the_noise_is_finite(root):
    (root / "flow").mkdir()
    folder = tiny.make(root / "flow", "ddpm")
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"}))
    assert list(published.diffusers(str(folder)).samplers) == ["published", "ddim", "dpmpp_2m", "ancestral"]
    assert "plms" in published.diffusers(str(root / "ddpm")).samplers


SA = {"_class_name": "SASolverScheduler", "use_karras_sigmas": False} | {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}


def test_a_scheduler_of_no_known_class(root):
    """Another sampler needs only its table, which decides what is drawn; its own is refused."""
    folder = tiny.make(root / "sa", "ddpm", **SA)
    with pytest.raises(InputError, match=r"SASolverScheduler.* is not known.* or give --sampler ddim"):
        published.diffusers(str(folder))
    model = published.diffusers(str(folder), sampler="ddim")
    assert list(model.samplers) == ["ddim", "dpmpp_2m", "ancestral", "plms", *BETWEEN]
    assert model.load()[1].endswith("whose SASolverScheduler is not used")
    (folder / "scheduler_config.json").write_text(json.dumps(SA | {"beta_schedule": "exp"}))
    with pytest.raises(InputError, match="beta_schedule = 'exp' is not supported"):
        published.diffusers(str(folder), sampler="ddim")
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": "FlowMatchHeunDiscreteScheduler"}))
    with pytest.raises(InputError, match=r"FlowMatchHeunDiscreteScheduler.* is not known"):
        published.diffusers(str(folder), sampler="ddim")


@pytest.mark.parametrize(("options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_line(root, pipelines, options, said, capsys):
    assert run(*(option.format(root=root, pipelines=pipelines) for option in options), "--steps", 2) == 2
    output = capsys.readouterr().err.strip()
    assert said in output.splitlines()[-1]


def test_a_file_of_openai(tmp_path, monkeypatch):
    """Its flags choose network, table and variance; the file's reading is tested in test_torch_file."""
    named = {"image_size": 32, "num_channels": 32, "num_res_blocks": 1, "learn_sigma": True, "class_cond": True}
    named |= {"channel_mult": "1,2", "attention_resolutions": "16"}
    flags = " ".join(f"--{name} {value}" for name, value in named.items())
    flags += " --diffusion_steps 100 --rescale_timesteps True --noise_schedule cosine --timestep_respacing 4"
    network = openai_flags.unet(named)
    params = jax.tree.map(lambda leaf: (0.05 * RNG.normal(size=leaf.shape)).astype(np.float32), network.template())
    flat = traverse_util.flatten_dict(params, sep="/")
    theirs = {entry.theirs: entry.layout.write(*(flat[name] for name in entry.ours)) for entry in network.entries}
    monkeypatch.setattr(files, "weights", lambda path, key=None: theirs)
    model = published.openai("64x64_diffusion.pt", flags)
    read, about, folder = model.load()
    assert "64x64_diffusion.pt" in about
    assert folder("ddim").as_posix() == "samples/64x64_diffusion/ddim"
    for a, b in zip(jax.tree.leaves(read), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert run("--pretrained", "64x64_diffusion.pt", "--flags", flags, "--num", 2, "--out", tmp_path) == 0
    assert np.load(tmp_path / "samples.npz")["images"].shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    ("flags", "said"),
    [("image_size 64", "give pairs of --name value"), ("--image_sise 64", "image_sise"), ("--image_size 50", "50")],
)
def test_wrong_flags(flags, said, capsys):
    assert run("--pretrained", "x.pt", "--flags", flags) == 2
    assert said in capsys.readouterr().err
