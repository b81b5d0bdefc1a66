"""The command lines as a person types them: what they leave, and one clear line for every mistake."""

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import config, evaluate, sample, train
from diffusion_jax.app import cli
from diffusion_jax.config import elsewhere
from diffusion_jax.evaluation import protocol
from diffusion_jax.methods import ddpm
from tests import tiny

pytestmark = pytest.mark.slow

CONFIG = tiny.__file__


def run(main, *arguments):
    """The exit status of a command line; its output is captured by pytest."""
    try:
        cli.run(main, [str(a) for a in arguments])
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "digits"
    options = ("--config.train.steps=6", "--config.log.sample_every=3", "--config.log.every=2")
    averages = ("--config.train.ema_decays=0.5", "--config.train.ema_profiles=0.1,0.2")
    assert run(train.main, "--config", CONFIG, "--workdir", workdir, *options, *averages) == 0
    return workdir


def test_training_leaves_checkpoints_metrics_and_pictures(trained):
    assert [p.name for p in (trained / "checkpoints").iterdir()] == ["6"]
    assert len((trained / "metrics.jsonl").read_text().splitlines()) == 3
    assert list((trained / "tensorboard").iterdir())
    assert sorted(p.name for p in (trained / "samples").glob("*.png")) == ["step_00000003.png", "step_00000006.png"]


def test_sampling_writes_a_grid_arrays_and_a_film(trained, tmp_path):
    assert run(sample.main, "--workdir", trained, "--num", 10, "--steps", 8, "--film", "--out", tmp_path) == 0
    images = np.load(tmp_path / "samples.npz")["images"]
    assert images.shape == (10, 8, 8, 1)
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(10, -1), axis=0)) == 10
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 9
    for name in ("grid.png", "strip.png"):
        Image.open(tmp_path / name).verify()


@pytest.mark.exhaustive
def test_images_do_not_depend_on_how_they_are_batched(trained, tmp_path):
    def drawn(name, *options):
        arguments = ("--workdir", trained, "--sampler", "ddim", "--steps", 5, "--out", tmp_path / name, *options)
        assert run(sample.main, *arguments) == 0
        return np.load(tmp_path / name / "samples.npz")["images"].astype(int)

    ten = drawn("ten", "--num", 10)
    # A pixel may round the other way: the arithmetic depends on the batch in its last bit.
    assert np.abs(drawn("by_eight", "--num", 10, "--batch", 8) - ten).max() <= 1
    assert np.abs(drawn("three", "--num", 3) - ten[:3]).max() <= 1
    # Controls: another seed, and the raw parameters, draw other images.
    assert np.abs(drawn("seed", "--num", 10, "--seed", 1) - ten).max() > 10
    assert (drawn("raw", "--num", 10, "--raw") != ten).any()


CHAINS = """
from diffusion_jax.diffusion import guidance, processes, samplers, timesteps
from diffusion_jax.methods.compose import Chain


def chains(model):
    def again(steps=5):  # DDIM once more
        ddim = samplers.ancestral(processes.gaussian(model.schedule, processes.ddim(0.0)))
        return Chain(ddim, timesteps.leading(steps, 1000), (guidance.clip(),))

    return {"again": again}
"""


def test_a_file_of_chains_adds_samplers_to_a_run(trained, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(CHAINS)
    common = ("--workdir", trained, "--num", 3, "--steps", 5, "--quiet")
    assert run(sample.main, *common, "--sampler", "ddim", "--out", tmp_path / "a") == 0
    assert (
        run(sample.main, *common, "--sampler", "again", "--chains", tmp_path / "mine.py", "--out", tmp_path / "b")
        == 0
    )
    one, other = (np.load(tmp_path / name / "samples.npz")["images"] for name in "ab")
    np.testing.assert_array_equal(one, other)
    capsys.readouterr()
    for text, said in (("chains = 3", "has no function chains"), ("def chains(model): return 3", "returns int")):
        (tmp_path / "wrong.py").write_text(text)
        assert run(sample.main, *common, "--chains", tmp_path / "wrong.py", "--out", tmp_path / "c") == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_samples_are_never_written_over_by_others(trained, tmp_path, capsys):
    """What differs is in the folder's name, and a folder of other samples is refused before anything is drawn."""
    options = ("--workdir", trained, "--num", 2, "--sampler", "ddim", "--steps", 2, "--quiet")
    kept = []
    for asked, tag in (((), ""), (("--seed", 1, "--eta", 0.5), "_eta-0.5_seed-1")):
        assert run(sample.main, *options, *asked) == 0
        kept.append(trained / "samples" / f"ddim_00000006_num-2_steps-2{tag}")
    assert (kept[0] / "samples.npz").read_bytes() != (kept[1] / "samples.npz").read_bytes()
    assert json.loads((kept[1] / "asked.json").read_text())["seed"] == 1

    assert run(sample.main, *options, "--out", tmp_path) == 0
    assert run(sample.main, *options, "--out", tmp_path) == 0  # the same once more
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    for asked in (("--seed", 1), ("--eta", 0.5), ("--steps", 3), ("--raw",), ("--num", 3)):
        assert run(sample.main, *options, "--out", tmp_path, *asked) == 2
        assert "holds other samples" in capsys.readouterr().err
    for damaged in ("[]", "{", "1"):
        (tmp_path / "asked.json").write_text(damaged)
        assert run(sample.main, *options, "--out", tmp_path) == 2
        assert "asked.json" in capsys.readouterr().err
    (tmp_path / "asked.json").unlink()
    assert run(sample.main, *options, "--out", tmp_path) == 2
    assert "without a record" in capsys.readouterr().err
    del before[tmp_path / "asked.json"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.exhaustive
def test_samples_say_which_parameters_drew_them(trained, capsys):
    """A folder for each, and what they are in the last line; that of an evaluation is in its report."""
    options = ("--workdir", trained, "--num", 8, "--sampler", "ddim", "--steps", 5, "--quiet")
    kinds = {
        "raw": (("--raw",), "raw parameters of step 6"),
        "0.5": (("--average", 0.5), "parameters averaged by 0.5 of step 6"),
        "post_hoc_0.15": (("--sigma-rel", 0.15), "parameters averaged post hoc by sigma_rel 0.15 of step 6"),
    }
    drawn = []
    for tag, (asked, about) in kinds.items():
        assert run(sample.main, *options, *asked) == 0
        assert f"8 samples (ddim, {about})" in capsys.readouterr().err
        drawn.append(np.load(trained / "samples" / f"ddim_00000006_{tag}_num-8_steps-5" / "samples.npz")["images"])
    assert all((one != other).any() for one, other in itertools.combinations(drawn, 2))

    told = ("--likelihood", "bound", "--examples", 8, "--steps", 2, "--average", "sigma_rel_0.1")
    assert run(evaluate.main, "--workdir", trained, "--num", 0, *told) == 0
    found = protocol.read(trained / "evaluations" / "likelihood_sigma_rel_0.1" / "evaluation.json")
    assert found["subject"]["weights"] == "parameters averaged by sigma_rel_0.1 of step 6"


@pytest.mark.parametrize("main", [train.main, sample.main])
def test_help_reads_well(main, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert "python -m diffusion_jax." in said
    assert "--workdir DIR" in said
    assert max(map(len, said.splitlines())) < 120


MISTAKES = {
    "unknown config key train.bach_size; did you mean train.batch_size": ["--config.train.bach_size=3"],
    "unknown flag --bach": ["--bach=3"],
    "unknown flag --lr; --lr is --config.train.learning_rate here": ["--lr=1e-4"],
    r"train.batch_size=many: give a whole number .*\(examples of an update": ["--config.train.batch_size=many"],
    "batch size 12 is not divisible by 8 devices; take 8 or 16": ["--config.train.batch_size=12"],
    "the data's image is 8x8x1, the config's 8x8x3; set data.shape": ["--config.data.shape=(8,8,3)"],
    "multiples of 16": ["--config.model.multipliers=(1,1,1,1,1)"],
    "learning": ["--config.train.learning=1"],
    "train.steps_per_call=0: give a whole number from 1 to": ["--config.train.steps_per_call=0"],
}


@pytest.mark.parametrize(("said", "arguments"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_gets_one_line_and_writes_nothing(said, arguments, tmp_path, capsys):
    workdir = tmp_path / "new"
    assert run(train.main, "--config", CONFIG, "--workdir", workdir, *arguments) == 2
    output = capsys.readouterr().err.strip()
    assert len(output.splitlines()) == 1
    assert output.startswith("error: ")
    assert re.search(said, output)
    assert not workdir.exists()


def test_a_missing_config_names_those_there_are(tmp_path, capsys):
    assert run(train.main, "--config", Path(CONFIG).parent / "tinny.py", "--workdir", tmp_path / "new") == 2
    assert "tiny.py" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(train.main, "--config", CONFIG, "--workdir", tmp_path / "file" / "run") == 2
    assert "cannot write to" in capsys.readouterr().err


SAMPLING_MISTAKES = {
    "choose from ancestral, ddim": ["--sampler", "dpm"],
    "the sampler ancestral takes no --eta; add --sampler ddim": ["--eta", 0.5],
    "--eta: 2: give a finite number from 0 to 1": ["--sampler", "ddim", "--eta", 2],
    "1, ..., 1000, not 2000": ["--steps", 2000],
    "no checkpoint of step 5; there are 6": ["--step", 5],
    "--num: 0: give a whole number from 1": ["--num", 0],
    "--steps: -5: give a whole number from 1": ["--steps", -5],
    "--eta: nan: give a finite number from 0 to 1": ["--eta", "nan"],
    "unknown: --num_samples 5 --classifier_scale=2; --num_samples is --num here; --classifier_scale is --guidance": [
        *("--num_samples", 5, "--classifier_scale=2"),
    ],
    "there is no config file": ["--config", "config/elsewhere.py"],
    "--raw and --average are different parameters; give one": ["--raw", "--average", "0.5"],
    "has no average 0.7; it has 0.5, sigma_rel_0.1, sigma_rel_0.2": ["--average", "0.7"],
    "sigma_rel is 0.3; it must be": ["--sigma-rel", 0.3],
    "the newest snapshot is of step 6": ["--sigma-rel", 0.1, "--step", 7],
}


@pytest.mark.parametrize(("said", "arguments"), SAMPLING_MISTAKES.items(), ids=SAMPLING_MISTAKES)
def test_a_sampling_mistake_gets_one_line(said, arguments, trained, capsys):
    before = sorted(trained.rglob("*"))
    assert run(sample.main, "--workdir", trained, *arguments) == 2
    output = capsys.readouterr().err.strip()
    assert len(output.splitlines()) == 1
    assert said in output
    assert sorted(trained.rglob("*")) == before


def test_sampling_from_no_work_directory(tmp_path, capsys):
    assert run(sample.main, "--workdir", tmp_path) == 2
    assert "not a work directory" in capsys.readouterr().err


def test_a_config_inside_a_work_directory_is_never_executed(trained, tmp_path, capsys):
    """A work directory may have been downloaded: its JSON must not be able to name code that came with it."""
    foreign = tmp_path / "foreign"
    shutil.copytree(trained, foreign)
    (foreign / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    stored = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps(stored | {"config_file": str(foreign / "evil.py")}))
    assert run(sample.main, "--workdir", foreign) == 2
    assert "refusing to execute" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_two_runs_do_not_share_a_work_directory(trained, capsys):
    from diffusion_jax.training.workdir import locked

    with locked(trained):
        assert run(train.main, "--config", CONFIG, "--workdir", trained, "--config.train.steps=6") == 2
    assert "another run is using" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_a_disk_that_is_too_full_for_a_checkpoint(tmp_path, capsys, monkeypatch):
    """Noticed before half a checkpoint is written; the one before stays."""
    import shutil
    from collections import namedtuple

    options = ("--config", CONFIG, "--workdir", tmp_path, "--config.log.checkpoint_every=2")
    assert run(train.main, *options, "--config.train.steps=2") == 0
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30 - 1000, 1000))
    assert run(train.main, *options, "--config.train.steps=4") == 1
    said = capsys.readouterr().err
    assert "the disk is full: a checkpoint of step 4 needs" in said
    assert "the checkpoint of step 2 is intact" in said


def test_a_run_has_no_options_of_published_models(trained, capsys):
    assert run(sample.main, "--workdir", trained, "--size", "8x8") == 2
    assert "--size is of published models; leave out" in capsys.readouterr().err


def test_the_next_command_can_be_pasted(tmp_path, monkeypatch, capsys):
    """A work directory with a space in its name is quoted."""
    monkeypatch.setattr(train, "fit", lambda *arguments, **options: None)
    assert run(train.main, "--config", CONFIG, "--workdir", tmp_path / "my run") == 0
    assert f"--workdir '{tmp_path / 'my run'}'" in capsys.readouterr().err


def test_what_others_call_our_options_names_options_that_there_are(capsys):
    with pytest.raises(SystemExit):
        sample.main(["--help"])
    options = capsys.readouterr().out
    values = config.flatten(ddpm.default_config().to_dict())
    for said in elsewhere.OURS.values():
        for name in re.findall(r"--([\w.-]*\w)", said):
            assert name.removeprefix("config.") in values if name.startswith("config.") else f"--{name} " in options
