"""A published network is trained further from its weights, and written back as a folder that is read again."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from published_tiny import make

from diffusion_jax import export, pretrained, sample, train
from diffusion_jax.app import cli, resolve
from diffusion_jax.core.errors import InputError
from diffusion_jax.methods import finetune

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "published.md").read_text()
SHORT = ["train.batch_size=8", "train.steps=2", "log.sample_every=0", "data.threads=1", "train.warmup_steps=0"]


def command(main, *arguments):
    cli.run(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The page's config file, on eight small images and a tiny folder, for two steps."""
    root = tmp_path_factory.mktemp("finetune")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (code,) = [code for code in blocks if "get_config" in code]
    (root / "cats.py").write_text(code.replace("(256, 256, 3)", "(8, 8, 3)"))
    (root / "cats").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "cats" / f"{i}.png")
    make(root, "ddpm")
    places = [f"start.folder={root / 'ddpm'}", f"data.dir={root / 'cats'}"]
    options = [f"--config.{value}" for value in SHORT + places]
    command(train.main, "--config", root / "cats.py", "--workdir", root / "run", *options)
    return root


def test_it_starts_from_the_published_weights_and_moves(run):
    published = pretrained.load(run / "ddpm").params
    _, raw = resolve.parameters(run / "run", resolve.experiment(run / "run"), "params")
    assert jax.tree.structure(raw) == jax.tree.structure(published)
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(raw), jax.tree.leaves(published), strict=True)]
    assert 1e-6 < max(moved) < 1e-4  # two updates of Adam by 1e-5; from random parameters it would be all of them


def test_what_is_exported_is_read_and_drawn_alike(run, capsys):
    command(export.main, "--workdir", run / "run", "--to", run / "exported")
    again = pretrained.load(run / "exported")
    _, averaged = resolve.parameters(run / "run", resolve.experiment(run / "run"))
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(averaged), strict=True):
        np.testing.assert_array_equal(a, b)
    drawn = []
    for which in (("--workdir", run / "run"), ("--pretrained", run / "exported")):
        out = run / f"drawn{len(drawn)}"
        command(sample.main, *which, "--num", 2, "--sampler", "published", "--steps", 3, "--out", out)
        drawn.append(np.load(out / "samples.npz")["images"])
    np.testing.assert_array_equal(*drawn)
    with pytest.raises(SystemExit):
        command(export.main, "--workdir", run / "run", "--to", run / "exported")
    assert "is there already; choose another --to" in capsys.readouterr().err


def test_diffusers_reads_the_export(run):
    diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")
    folder = run / "for_diffusers"
    command(export.main, "--workdir", run / "run", "--to", folder, "--raw")
    network = diffusers.UNet2DModel.from_pretrained(folder)
    ours = pretrained.load(folder)
    assert sum(p.numel() for p in network.parameters()) == sum(x.size for x in jax.tree.leaves(ours.params))


def test_what_cannot_be_trained_further_is_refused(run, tmp_path):
    config = finetune.default_config()
    with pytest.raises(InputError, match="no model to start from"):
        finetune.method(config, None)
    for name, said in (("consistency", "no scheduler_config.json with a table"), ("text", "is told a condition")):
        config.start.folder = str(make(tmp_path, name))
        with pytest.raises(InputError, match=said):
            finetune.method(config, None)
    config.start.folder = str(make(tmp_path / "labels", "consistency", _class_name="DDPMScheduler"))
    assert set(finetune.method(config, None).data.example) == {"image", "label"}
    config.start.folder = str(run / "ddpm")
    config.data.shape = (8, 8, 1)
    with pytest.raises(InputError, match="has 3 channels"):
        finetune.method(config, None)
