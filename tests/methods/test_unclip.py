"""unCLIP from the command line, every network tiny: CLIP, decoder, super-resolution, prior; and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax import sample, train
from diffusion_jax.app import resolve
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.methods import captioned
from experiments import captioned_quality

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

CONFIGS = Path(__file__).parents[2] / "configs"
LOOP = "train.batch_size=8 train.steps=2 train.steps_per_call=1 train.decay_steps=0 log.sample_every=0 data.threads=0"
CLIP = "features=8 layers=1 heads=2 embedding=6 patch=16"
SMALL = "features=8 layers=1"
UPPER = "channels=8 groups=4 multipliers=(1,) patch=8"


def values(text, section=""):
    return [f"--config.{section}{value}" for value in text.split()]


def run(root, name, workdir, *more):
    train.main(["--config", str(CONFIGS / f"{name}.py"), "--workdir", str(root / workdir), *values(LOOP), *more])


def digits(data_dir="", shrink=1):
    """Of 32x32 pixels, as MNIST with its border, or fewer."""
    times = 4 // shrink

    def enlarged(example):
        return {**example, "image": example["image"].repeat(times, axis=0).repeat(times, axis=1)}

    return lambda split: sources.Mapped(sources.digits(split), enlarged)


def prior(root, workdir, clip="clip"):
    held = {"clip": clip, "decoder": "decoder", "upper": "upper"}
    run(
        root,
        "unclip_prior",
        workdir,
        *values(CLIP, "clip."),
        *values(SMALL + " heads=2", "prior."),
        *values(SMALL + " steps=2", "decoder."),
        *values(UPPER + " steps=2", "upper."),
        *(f"--config.{section}.run={root / folder}" for section, folder in held.items()),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioned, "mnist", digits)
        run(root, "clip", "clip", *values(CLIP, "clip."))
        of_clip = [*values(CLIP, "clip."), f"--config.clip.run={root}/clip"]
        run(root, "unclip_decoder", "decoder", *of_clip, *values(SMALL, "model."))
        run(root, "super_resolution", "upper", *values(UPPER, "model."))
        prior(root, "prior")
        yield root


def drawn(folder, *more):
    out = folder / "out"
    sample.main([f"--workdir={folder}", "--num=4", "--steps=2", "--quiet", f"--out={out}", *more])
    return dict(np.load(out / "samples.npz"))["images"], dict(np.load(out / "condition.npz"))


def test_pictures_are_drawn_of_captions(runs):
    pictures, told = drawn(runs / "prior")
    assert pictures.shape == (4, 32, 32, 1)
    assert told["ids"].shape == (4, 4)
    assert len(np.unique(pictures.reshape(4, -1), axis=0)) == 4


def test_a_run_needs_no_other_once_it_has_begun(runs, tmp_path):
    before, _ = drawn(runs / "prior")
    shutil.copytree(runs / "prior", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "out")
    for name in ("clip", "decoder", "upper"):
        (runs / name).rename(tmp_path / name)
    try:
        after, _ = drawn(tmp_path / "moved")
    finally:
        for name in ("clip", "decoder", "upper"):
            (tmp_path / name).rename(runs / name)
    np.testing.assert_array_equal(after, before)


def test_a_decoder_makes_variations_of_pictures_and_pictures_of_texts(runs):
    variations, told = drawn(runs / "decoder")
    assert variations.shape == (4, 8, 8, 1)
    assert not told["mask"].any()
    model = resolve.trained(runs / "decoder", resolve.experiment(runs / "decoder"), "ema", None)
    (of_text,) = model.sample_condition(2, {"prompt": np.array(["a thick seven"])})
    assert np.isnan(of_text["image"]).all()
    (of_both,) = model.sample_condition(2, {"prompt": np.array(["nine"]), "image": np.zeros((1, 32, 32, 1))})
    assert of_both["mask"].any()
    assert np.isfinite(of_both["image"]).all()
    with pytest.raises(InputError, match="the word 'cat' is unknown"):
        model.sample_condition(2, {"prompt": np.array(["a cat"])})


def test_the_sizes_of_small_images_are_swept(runs):
    pictures, told = drawn(runs / "upper", "--condition=noise_level=0,0.5")
    assert pictures.shape == (4, 32, 32, 1)
    np.testing.assert_array_equal(told["noise_level"], np.float32([0, 0.5, 0, 0.5]))
    np.testing.assert_array_equal(told["low_res"][0], told["low_res"][1])


def test_what_is_refused(runs, tmp_path):
    run(runs, "clip", "other", *values(CLIP, "clip."), "--config.seed=1")
    with pytest.raises(InputError, match=r"the decoder in .* learned from another CLIP"):
        prior(runs, "refused", clip="other")
    with pytest.raises(InputError, match=r"there is no CLIP; give the work directory of one: --config.clip.run"):
        run(runs, "unclip_decoder", "refused", *values(CLIP, "clip."), *values(SMALL, "model."))
    with pytest.raises(InputError, match=r"the network in .* is another"):
        run(runs, "unclip_decoder", "refused", f"--config.clip.run={runs}/clip", *values(SMALL, "model."))
    with pytest.raises(InputError, match="accumulate=2: each example of a batch is compared with all others"):
        run(runs, "clip", "refused", *values(CLIP, "clip."), "--config.train.accumulate=2")
    with pytest.raises(InputError, match="patches of 7 pixels do not tile a picture of 32x32"):
        run(runs, "clip", "refused", "--config.clip.patch=7")
    assert not (runs / "refused").exists()


def test_the_table_of_a_run(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(captioned_quality, "LEVELS", (0.1,))
    captioned_quality.main([f"--workdir={runs}/prior", "--each=2", f"--json={tmp_path}/rows.json"])
    said = capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows["real, train, 8x8"][:2] == [1.0, 1.0]
    assert rows["the decoder, 8x8"][2] > rows["real, train, 8x8"][2]  # nothing was learned in two steps
    assert rows["apart"] < 1e-4
    assert "the text's" in said
