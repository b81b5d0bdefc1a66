"""Every config builds, has the size its paper says, and can be drawn from."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import cli, config, train
from diffusion_jax.experiment import SampleRequest

FOLDER = Path(__file__).parent.parent / "configs"
GALLERY = (FOLDER.parent / "docs" / "gallery.md").read_text()
PUBLISHED = {
    "cifar": 35_746_307,
    "celeba_hq": 113_673_219,
    "lsun_bedroom": 113_673_219,
    "lsun_church": 113_673_219,
    "lsun_cat": 113_673_219,
    # Improved DDPM's and a table of 11 labels; ADM's and one label more.
    "guided_cifar": 52_546_438 + 11 * 512,
    "imagenet64": 295_904_454 + 768,
    "imagenet256_dit": 674_834_720,
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_config_builds_and_says_how_to_run_it(path):
    module = config.load(path)
    values = module.get_config()
    experiment = module.build(values)
    assert f"python -m diffusion_jax.train --config configs/{path.name} --workdir runs/" in module.__doc__
    assert f"`{path.stem}`" in GALLERY or f"`configs/{path.name}`" in GALLERY
    params = jax.eval_shape(experiment.init, jax.random.key(0))
    if path.stem in PUBLISHED:
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED[path.stem]
    # Shapes only: nothing of this size is computed here.
    batch = {name: jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for name, x in experiment.example.items()}
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    losses = jax.eval_shape(experiment.loss, keys, params, batch, jax.ShapeDtypeStruct((2,), jnp.float32))
    assert losses.shape == (2,)
    for make in experiment.samplers.values():
        drawn = jax.eval_shape(make(SampleRequest(batch=2)), params, keys, *experiment.ask(2, {}))
        assert {leaf.shape[0] for leaf in jax.tree.leaves(drawn)} == {2}
    # What a work directory stores gives the same values back.
    assert config.from_json(module.get_config(), config.to_json(values)).to_dict() == values.to_dict()


def test_ones_own_images_train_from_the_command_line(tmp_path, capsys):
    """Non-square, grey, and through the folder source, for two steps."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (20, 40), np.uint8)).save(tmp_path / "images" / f"{i}.png")
    small = ["channels=8", "groups=4", "multipliers=(1,2)", "blocks=1", "attention_levels=(1,)"]
    arguments = [
        *("--config", str(FOLDER / "folder.py"), "--workdir", str(tmp_path / "run")),
        *(f"--config.data.dir={tmp_path / 'images'}", "--config.data.shape=(8,16,1)", "--config.train.batch_size=8"),
        *(f"--config.model.{value}" for value in small),
        *("--config.train.steps=2", "--config.log.sample_every=0"),
    ]
    cli.run(train.main, arguments)
    assert "4 examples" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()


def test_a_folder_must_be_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.run(train.main, ["--config", str(FOLDER / "folder.py"), "--workdir", str(tmp_path / "run")])
    assert "--config.data.dir=PATH" in capsys.readouterr().err
