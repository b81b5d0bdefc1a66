"""Every page of docs/how_to runs as it stands, in a reader's folder: files, Python and commands, in small.

Pages that other tests run are left to them (`ELSEWHERE`).
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from diffusion_jax import config as configs
from diffusion_jax import evaluate, prepare, sample, train
from diffusion_jax.app import cli
from diffusion_jax.data import latents as kept
from diffusion_jax.methods import pixels
from diffusion_jax.methods.autoencoders import first_stages
from diffusion_jax.models.blocks.conditioning import embedded

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "how_to"
ELSEWHERE = {
    "devices": "tests/training/test_hosts.py",
    "few_steps": "tests/commands/test_distill.py",
    "network": "tests/docs/test_networks.py",
    "process": "tests/docs/test_docs.py",
    "published": "tests/pretrained/test_finetune.py",
    "text": "tests/pretrained/test_text_pictures_parity.py",
    "watching": "tests/docs/test_watching.py",
}
PAGES = sorted({path.stem for path in FOLDER.glob("*.md")} - ELSEWHERE.keys())
LONG = dict.fromkeys(("codes", "latents"), pytest.mark.exhaustive)  # they train several models
# A block, and the name of the file that the words before it save it as.
BLOCK = re.compile(r"(?:`(\w+\.py)`:\n\n)?^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

MAINS = {"train": train.main, "prepare": prepare.main, "sample": sample.main, "evaluate": evaluate.main}
TRAINING = "train.batch_size=8 train.steps_per_call=1 data.threads=1 log.sample_every=0 log.every=1"
TINY = {
    "train": [f"--config.{value}" for value in TRAINING.split()],
    "prepare": ["--config.data.threads=1"],
    "sample": ["--num", "8", "--quiet"],
    "evaluate": ["--extractor", "extractor.py"],
}
# What is written -> what is run, where it would take minutes or a file of others.
SHORTER = {
    "inpaint": {
        "configs/consistency_training.py": "configs/consistency_training.py --config.train.steps=5",
        "--inpaint first.png": "--steps 2 --inpaint first.png",
    },
    "images": {
        "folder.py --workdir runs/photos": "folder.py --workdir runs/photos --config.data.shape=(24,20,3)",
        "--sampler ddim": "--sampler ddim --steps 2",
    },
    "resume": {"train.steps=4000": "train.steps=3", "digits@2000": "digits@2"},
    "sampler": {"google/ddpm-cifar10-32": "published/ddpm"},
    "condition": {"--guidance 2": "--guidance 2 --steps 2"},
}
# Of a run, and with the FID's network: tests/commands/test_evaluate.py.
OTHERS = re.compile(r"^python -m diffusion_jax.evaluate .*(?:--workdir|--compare|pt_inception).*\n", re.MULTILINE)


class Small(nn.Module):
    """In place of `pixels.unet`, which takes seconds to compile."""

    channels: int
    embed: Mapping[str, nn.Module]

    @nn.compact
    def __call__(self, x, time, cond=None, dropout_keys=None):
        told = time[:, None] / 1000 + embedded(self.embed, cond, 16)
        return nn.Dense(self.channels)(nn.swish(nn.Dense(8)(x) + nn.Dense(8)(told)[:, None, None]))


class SmallStage(nn.Module):
    """In place of `first_stages.kl`, likewise: a vector of the code is of 2x2 pixels."""

    channels: int
    latent: int

    def setup(self):
        self.into, self.back = nn.Conv(2 * self.latent, (2, 2), (2, 2)), nn.Dense(4 * self.channels)

    def encode(self, x):
        return self.into(x)

    def decode(self, z):
        batch, height, width, _ = z.shape
        squares = self.back(z).reshape(batch, height, width, 2, 2, self.channels).swapaxes(2, 3)
        return squares.reshape(batch, 2 * height, 2 * width, self.channels)

    def __call__(self, x):
        return self.decode(self.encode(x)[..., : self.latent])


def command(line):
    """A line of a page, in small."""
    python, dash_m, module, *arguments = shlex.split(line)
    assert (python, dash_m) == ("python", "-m")
    name = module.removeprefix("diffusion_jax.")
    steps = [f"--config.train.steps={3 if '--from' in line else 2}"] if name == "train" else []
    cli.run(MAINS[name], steps + arguments + TINY[name])


def unet(config, out_channels=None, embed=MappingProxyType({}), **fields):
    return Small(out_channels or config.data.shape[-1], embed)


@pytest.fixture(scope="module")
def small():
    """Networks that compile in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "unet", unet)
        patch.setattr(first_stages, "kl", lambda model, data: SmallStage(data.shape[-1], model.latent))
        yield


@pytest.fixture(scope="module")
def reader(tmp_path_factory, small):
    """A reader's folder: a run of the digits, three folders of pictures and a published model."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").symlink_to(ROOT / "configs")
    for number, name in enumerate(("photos", "mine", "theirs")):
        (folder / name).mkdir()
        for i, drawn in enumerate(np.random.default_rng(number).integers(0, 256, (8, 24, 24, 3), dtype=np.uint8)):
            Image.fromarray(drawn).save(folder / name / f"{i}.png")
    before, path = Path.cwd(), [*sys.path]
    os.chdir(folder)
    sys.path[:0] = [str(folder), str(ROOT / "tests" / "pretrained")]
    import published_tiny

    published_tiny.make(folder / "published", "ddpm")
    command("python -m diffusion_jax.train --config configs/digits.py --workdir runs/digits")
    yield folder
    os.chdir(before)
    sys.path[:] = path


def samples(folder, by="*"):
    """The images of the one set in a run's folder whose name fits; pages share the run of the digits."""
    (found,) = Path(folder, "samples").glob(f"{by}/samples.npz")
    return np.load(found)["images"]


def images(names):
    assert samples("runs/mine").shape == (8, 24, 20, 3)
    assert callable(names["lion"])


def resume(names):
    record = json.loads(Path("runs/slower/config.json").read_text())
    assert "digits" in json.dumps(record)
    steps = [json.loads(line)["step"] for line in Path("runs/slower/metrics.jsonl").read_text().splitlines()]
    assert steps == [3]


def sampler(names):
    assert samples("runs/digits", "ab2_*").shape == (8, 8, 8, 1)
    assert names["images"].shape == (16, 8, 8, 1)
    assert np.load(*Path("samples").rglob("samples.npz"))["images"].shape == (8, 8, 8, 3)
    config = configs.load(Path("configs/digits.py")).get_config()
    assert "ab2" in names["build"](config).sampling.samplers


def condition(names):
    (found,) = Path("runs/thick/samples").glob("*/condition.npz")
    np.testing.assert_allclose(np.load(found)["thickness"], np.resize([0.25, 0.3, 0.35], 8), rtol=1e-6)


def schedule(names):
    assert samples("runs/power").shape == (8, 8, 8, 1)


def inpaint(names):
    (found,) = Path("runs/consistency_training/samples").glob("*inpaint-first-2*/samples.npz")
    digits = np.stack([np.asarray(Image.open(f"{name}.png")) for name in ("first", "second")])
    np.testing.assert_array_equal(np.load(found)["images"][:4, :4, :, 0], np.tile(digits, (2, 1, 1))[:, :4])
    assert np.load(*Path("runs/digits/samples").glob("*inpaint-first*/samples.npz"))["images"].shape == (8, 8, 8, 1)
    assert "enlarge" in names["method"].edits(None)


def autoencoder(names):
    lines = [json.loads(line) for line in Path("runs/vae/metrics.jsonl").read_text().splitlines()]
    for line in lines:
        np.testing.assert_allclose(line["loss"], line["distortion"] + line["rate"], rtol=1e-5)
    assert lines[1]["loss"] < lines[0]["loss"]
    resumed = ["--config.train.steps=3", *TINY["train"]]
    cli.run(train.main, ["--config", "vae.py", "--workdir", "runs/vae", *resumed])
    assert json.loads(Path("runs/vae/metrics.jsonl").read_text().splitlines()[-1])["step"] == 3


def codes(names):
    assert samples("runs/pixelcnn").shape == (8, 8, 8, 1)
    looks = {path.name.split("_")[0] for path in Path("runs/codes/samples").iterdir() if path.is_dir()}
    assert looks == {"prior", "reconstruct", "traverse", "filters"}
    lines = [json.loads(line) for line in Path("runs/free_bits/metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["loss"] >= line["distortion"] + 2


def latents(names):
    assert samples("runs/latent").shape == (8, 8, 8, 1)
    assert {split: kept.record(f"latents/{split}").num for split in ("train", "test")} == {"train": 1200, "test": 597}
    assert names["z"].shape == (16, *names["record"].shape)
    assert names["experiment"].data.shape == (4, 4, 2)
    # The run is whole: it draws the same where neither the first stage nor the latents are.
    before = samples("runs/latent")
    for folder in ("runs/first_stage", "latents", "runs/latent/samples"):
        Path(folder).rename(folder.replace("/", "_") + "_moved")
    command("python -m diffusion_jax.sample --workdir runs/latent")
    assert (samples("runs/latent") == before).all()


def sample_fn(names):
    assert names["means"].shape == (16,)
    assert names["batches"].shape == (2, 16, 8, 8, 1)
    assert {shard.data.shape for shard in names["images"].addressable_shards} == {(2, 8, 8, 1)}
    np.testing.assert_allclose(names["images"].mean((1, 2, 3)), names["means"], atol=1e-4)


def measured(names):
    found = json.loads(Path("mine-evaluated/evaluation.json").read_text())
    assert found["protocol"]["extractor"]["name"] == "mean colour"


CHECKS = {
    "autoencoder": autoencoder,
    "codes": codes,
    "condition": condition,
    "evaluate": measured,
    "images": images,
    "inpaint": inpaint,
    "latents": latents,
    "resume": resume,
    "sample_fn": sample_fn,
    "sampler": sampler,
    "schedule": schedule,
}


@pytest.mark.parametrize("page", [pytest.param(page, marks=LONG.get(page, ())) for page in PAGES])
def test_a_page_runs(page, reader):
    text = OTHERS.sub("", (FOLDER / f"{page}.md").read_text())
    assert len(BLOCK.findall(text)) == text.count("\n```") / 2
    for long, short in SHORTER.get(page, {}).items():
        assert long in text, long
        text = text.replace(long, short)
    names = {"__name__": page, "Small": Small}
    for file, language, code in BLOCK.findall(text):
        if file:
            Path(file).write_text(code)
        elif language:
            exec(compile(code, f"docs/how_to/{page}.md", "exec"), names)
        for line in re.findall(r"^python -m .*", code, re.MULTILINE):
            command(line)
    CHECKS[page](names)


def test_the_python_of_the_first_page_draws_from_the_run(reader):
    names = {"__name__": "start"}
    for _, language, code in BLOCK.findall((ROOT / "docs" / "start.md").read_text()):
        if language:
            exec(compile(code, "docs/start.md", "exec"), names)
    assert names["images"].shape == (16, 8, 8, 1)
    assert names["step"] >= 2
