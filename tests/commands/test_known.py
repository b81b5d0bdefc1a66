"""Samples of which something is known, from pictures, as a person types it; and one line for every mistake."""

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import sample, train
from tests.commands.test_cli import run

pytestmark = pytest.mark.slow

CONFIG = """
import numpy as np
from flax import linen as nn
from diffusion_jax.data.sources import Mapped
from diffusion_jax.methods import {page}, pixels
from diffusion_jax.methods.compose import compose
{imports}
SHAPE = (8, 8, {channels})


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, time, dropout_keys=None):
        return nn.Dense(SHAPE[-1])(nn.swish(nn.Dense(8)(x) + time[:, None, None, None] / 1000))


def source(split):
    images = np.random.default_rng(0).integers(0, 256, (16, *SHAPE), dtype=np.uint8)
    return Mapped(images, lambda image: {{"image": image}})


def get_config():
    config = pixels.config_digits()
    config.data.shape = SHAPE
    config.train.steps = 1
    config.log.samples = 0
    return config


def build(config):
    data = pixels.data(config, source)
    return compose(config, {method})
"""
CONFIGS = {
    "consistency": CONFIG.format(
        page="edm",
        imports="from diffusion_jax.methods.few_step import consistency\n"
        "from diffusion_jax.diffusion.few_step import stages\n",
        channels=3,
        method="consistency.improved(data, Net(), stages.constant(11))",
    ),
    "flow": CONFIG.format(
        page="flow", imports="", channels=1, method="flow.method(config, source)._replace(model=Net())"
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs, one of colours, and pictures of what is known: two of each, and a mask."""
    folder = tmp_path_factory.mktemp("known")
    for name, text in CONFIGS.items():
        (folder / f"{name}.py").write_text(text)
        given = ("--config", folder / f"{name}.py", "--workdir", folder / name)
        assert run(train.main, *given, "--config.train.steps_per_call=1") == 0
    random = np.random.default_rng(1)
    for number in (1, 2):
        for name, shape in {"colour": (8, 8, 3), "grey": (8, 8), "small": (4, 4, 3), "odd": (3, 4, 3)}.items():
            Image.fromarray(random.integers(64, 192, shape, dtype=np.uint8)).save(folder / f"{name}{number}.png")
    Image.fromarray(np.where(np.arange(64).reshape(8, 8) < 32, np.uint8(255), np.uint8(0))).save(folder / "mask.png")
    return folder


def pictures(root, name):
    return np.stack([np.asarray(Image.open(root / f"{name}{number}.png"), float) for number in (1, 2)])


def drawn(root, name, *options, num=3, steps=3):
    out = root / "out" / "_".join(map(str, (name, *options))).replace("/", "_")[-200:]
    asked = ("--workdir", root / name, "--num", num, "--steps", steps, "--quiet", "--out", out)
    assert run(sample.main, *asked, *options) == 0
    return np.load(out / "samples.npz")["images"].astype(float), out


def test_what_is_known_is_found_again_in_each_sample(root):
    """Pictures are taken in turn; a film is of the same chain. Pixels are rounded once, and means of patches too."""
    first, second = (root / f"colour{number}.png" for number in (1, 2))
    mask = ("--mask", root / "mask.png")
    found, out = drawn(root, "consistency", "--inpaint", first, second, *mask, "--film")
    known = pictures(root, "colour")[[0, 1, 0]]
    np.testing.assert_array_equal(found[:, :4], known[:, :4])
    assert (np.abs(found - known)[:, 4:] > 1).mean() > 0.5  # the rest is drawn
    assert Image.open(out / "film.gif").n_frames == 4

    found, _ = drawn(root, "consistency", "--colour", root / "grey1.png", root / "grey2.png")
    luminance = found @ np.array([0.2989, 0.5870, 0.1140])
    inside = ((found > 0) & (found < 255)).all(-1)  # beyond black and white a channel is cut off
    assert inside.mean() > 0.2
    assert np.abs(luminance - pictures(root, "grey")[[0, 1, 0]])[inside].max() < 1
    assert np.ptp(found, axis=-1).mean() > 5

    found, _ = drawn(root, "consistency", "--enlarge", root / "small1.png", root / "small2.png")
    patches = found.reshape(3, 4, 2, 4, 2, 3)
    inside = ((patches > 0) & (patches < 255)).all((2, 4))
    assert inside.mean() > 0.2
    assert np.abs(patches.mean((2, 4)) - pictures(root, "small")[[0, 1, 0]])[inside].max() < 1

    found, _ = drawn(root, "flow", "--inpaint", root / "grey1.png", *mask)
    np.testing.assert_array_equal(found[:, :4, :, 0], pictures(root, "grey")[[0, 0, 0], :4])


def test_samples_that_begin_from_pictures(root, capsys):
    """At 1 nothing is left of the picture: the samples are those of noise. Below, they are the nearer the earlier."""
    free, _ = drawn(root, "flow")
    begun = [drawn(root, "flow", "--from", root / "grey1.png", "--strength", s, "--film")[0] for s in (1, 0.7, 0.4)]
    np.testing.assert_array_equal(begun[0], free)
    away = [np.abs(found[..., 0] - pictures(root, "grey")[0]).mean() for found in begun]
    assert away[0] > 1.3 * away[1] > 1.3**2 * away[2]
    half, out = drawn(root, "consistency", "--from", root / "colour1.png", root / "colour2.png")
    assert half.shape == (3, 8, 8, 3)
    assert "strength" in (out / "asked.json").read_text()
    few = ("--num", 2, "--steps", 3, "--from", root / "grey1.png", "--strength", 0.1, "--out", root / "few")
    assert run(sample.main, "--workdir", root / "flow", *few) == 2
    assert "no step at or below start = 0.1: take a finer grid or a later start" in capsys.readouterr().err
    assert not (root / "few").exists()


MASK = "--mask {root}/mask.png"
REFUSED = [
    ("consistency", "--inpaint {root}/small1.png " + MASK, "small1.png is 4 x 4, and 8 x 8 is needed; cut or resize"),
    ("consistency", "--inpaint {root}/colour1.png --mask {root}/small1.png", "small1.png is 4 x 4, and 8 x 8 is"),
    ("consistency", "--inpaint {root}/colour1.png --mask {root}/colour2.png", "colour2.png has colours, and a"),
    ("consistency", "--inpaint {root}/colour1.png", "--inpaint needs --mask PICTURE"),
    ("consistency", "--enlarge {root}/small1.png " + MASK, "--enlarge takes no --mask PICTURE"),
    ("consistency", "--enlarge {root}/odd1.png", "odd1.png is 3 x 4: no whole factor makes 8 x 8 of it; resize it"),
    ("consistency", MASK, "give the picture: --inpaint PICTURE"),
    ("consistency", "--colour {root}/colour1.png", "colour1.png has colours, and a grey one is needed; convert it"),
    ("consistency", "--colour {root}/none.png", "cannot read {root}/none.png (No such file"),
    ("consistency", "--colour {root}/consistency.py", "(damaged, or not an image)"),
    ("consistency", "--colour {root}/grey1.png --enlarge {root}/small1.png", "--colour takes no --enlarge PICTURE"),
    ("flow", "--enlarge {root}/small1.png", "this model takes no --enlarge; it takes --inpaint and --from"),
    ("flow", "--strength 0.5", "--strength says how much noise a picture begins with; give the picture: --from"),
    (
        "flow",
        "--inpaint {root}/grey1.png " + MASK + " --strength 0.5",
        "--strength 0.5: this model fills pictures from noise",
    ),
    ("flow", "--from {root}/grey1.png --strength 0", "--strength 0 draws nothing"),
    ("flow", "--from {root}/grey1.png --strength 1.5", "1.5: give a finite number from 0 to 1"),
    ("flow", "--from {root}/grey1.png " + MASK, "--from takes no --mask PICTURE"),
    ("flow", "--inpaint {root}/colour1.png " + MASK, "colour1.png has colours, and a grey one is needed; convert it"),
    ("flow", "--inpaint {root}/grey1.png --film " + MASK, "no film of inpainting by this model; leave --film out"),
]


@pytest.mark.parametrize(("name", "options", "said"), REFUSED)
def test_one_line_for_every_mistake(name, options, said, root, tmp_path, capsys):
    given = options.format(root=root).split()
    assert run(sample.main, "--workdir", root / name, "--out", tmp_path / "out", *given) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said.format(root=root) in lines[0]
    assert not (tmp_path / "out").exists()
