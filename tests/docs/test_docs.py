"""The code in docs/how_to/process.md and docs/concepts/guidance.md runs as it stands: files, commands, pictures."""

import os
import re
import shlex
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from diffusion_jax import config as configs
from diffusion_jax import sample, train
from diffusion_jax.app import cli
from diffusion_jax.diffusion import processes
from diffusion_jax.training import workdir
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.state import TrainState
from experiments import steering

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent.parent / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
TEXT = (DOCS / "how_to" / "process.md").read_text()
TABLES = (DOCS / "concepts" / "processes.md").read_text()
BLOCKS = BLOCK.findall(TEXT)
# A python block whose docstring says how to train it is a config file; the others are checks that import such files.
PYTHON = [code for language, code in BLOCKS if language == "python"]
FILES = {found[1]: code for code in PYTHON if (found := re.search(r"--config (\w+)\.py", code))}
CHECKS = [code for code in PYTHON if code not in FILES.values()]
COMMANDS = [code.strip().splitlines() for language, code in BLOCKS if not language]

# Later values win: a network that compiles in seconds, two steps, and a handful of samples.
TINY = {
    "diffusion_jax.train": [
        *("--config.model.channels=8", "--config.model.groups=4", "--config.model.multipliers=(1,)"),
        *("--config.train.batch_size=8", "--config.train.steps=2", "--config.log.sample_every=0"),
    ],
    "diffusion_jax.sample": ["--num", "8", "--steps", "3"],
}
MAINS = {"diffusion_jax.train": train.main, "diffusion_jax.sample": sample.main}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reader's folder, with the files of the page; the working directory, as for `python -m`."""
    folder = tmp_path_factory.mktemp("reader")
    for name, code in FILES.items():
        (folder / f"{name}.py").write_text(code)
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    yield folder
    os.chdir(before)
    sys.path.remove(str(folder))
    for name in FILES:
        sys.modules.pop(name, None)


def test_every_block_is_run_by_this_file():
    assert sorted(FILES) == ["animorph", "photons", "snow"]
    assert len(CHECKS) == 2
    assert len(COMMANDS) == len(FILES)
    assert len(FILES) + len(CHECKS) + len(COMMANDS) == len(BLOCKS) == TEXT.count("\n```") / 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("commands", COMMANDS, ids=lambda lines: lines[0].split("/")[-1])
def test_a_process_of_ones_own_trains_and_draws_from_the_command_line(commands, folder):
    for line in commands:
        python, dash_m, module, *arguments = shlex.split(line)
        assert (python, dash_m) == ("python", "-m")
        cli.run(MAINS[module], arguments + TINY[module])
    (run,) = {re.search(r"--workdir (\S+)", line)[1] for line in commands}
    (samples,) = (folder / run / "samples").iterdir()
    drawn = np.load(samples / "samples.npz")["images"]
    assert drawn.shape == (8, 8, 8, 1)
    assert drawn.dtype == np.uint8
    assert len(np.unique(drawn.reshape(8, -1), axis=0)) == 8
    Image.open(samples / "grid.png").verify()


@pytest.mark.parametrize("code", CHECKS, ids=lambda code: next(name for name in FILES if f"\nfrom {name} " in code))
def test_a_check_holds(code, folder):
    exec(code, {"__name__": "check"})


def test_the_table_has_every_process():
    rows = "\n".join(line for line in TABLES.splitlines() if line.startswith("| `"))
    files = Path(processes.__file__).parent.glob("*.py")
    for name in {path.stem for path in files} - {"__init__", "core", "degrade"}:
        assert f"| `{name}` |" in rows, f"docs/concepts/processes.md does not list {name}"


# ---- docs/concepts/guidance.md: one program, and the runs that it reads.

GUIDANCE = (DOCS / "concepts" / "guidance.md").read_text()
PICTURES = sorted((DOCS / "concepts" / "guidance").iterdir())
TOLD = [line for language, code in BLOCK.findall(GUIDANCE) if not language for line in code.strip().splitlines()]
# All but the lengths of the chains is what a reader pastes.
SHORTER = {
    "timesteps.respaced(100,": "timesteps.respaced(4,",
    "timesteps.uniform(100,": "timesteps.uniform(13,",
    "timesteps.leading(50,": "timesteps.leading(4,",
    "SampleRequest(batch=10)": "SampleRequest(batch=10, steps=4)",
}


def untrained_run(name: str):
    """What training configs/NAME.py leaves in runs/NAME: two checkpoints, of small random networks."""
    file, folder = Path("configs") / f"{name}.py", Path("runs") / name
    module = configs.load(file)
    config = module.get_config()
    config.model.update(ConfigDict({"channels": 8, "groups": 4, "multipliers": (1,)}))
    shapes = jax.eval_shape(module.build(config).task.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        for step in (1, 2):
            params = jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(x.dtype), shapes)
            checkpoints.save(TrainState(np.int32(step), params, params, {}), {})
    workdir.claim(folder, config, file)


@pytest.fixture(scope="module")
def compiled_quickly():
    """Compiling takes longer here than all else."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def steered(tmp_path_factory, compiled_quickly):
    """What the names of the page's program stand for at its end, and the folder where its pictures are."""
    folder = tmp_path_factory.mktemp("steering")
    (folder / "configs").symlink_to(DOCS.parent / "configs")
    names = {"__name__": "guidance"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("guided", "digits", "classifier", "control"):
            untrained_run(name)
        for block in BLOCK.finditer(GUIDANCE):
            if block[1] == "python":
                code = block[2]
                for long, short in SHORTER.items():
                    code = code.replace(long, short)
                line = GUIDANCE.count("\n", 0, block.start()) + 1
                exec(compile("\n" * line + code, "docs/concepts/guidance.md", "exec"), names)
    return names, folder


@pytest.mark.exhaustive
@pytest.mark.rare
def test_the_steering_page_runs_and_draws_its_pictures(steered):
    names, folder = steered
    for images in (names["digits"], names["drawn"]):
        assert images.shape[1:] == (8, 8, 1)
        assert float(abs(images).max()) <= 1 + 1e-6
    drawn = sorted(folder.glob("*.png"))
    assert [path.name for path in drawn] == [path.name for path in PICTURES]
    for ours, theirs in zip(drawn, PICTURES, strict=True):
        assert Image.open(ours).size == Image.open(theirs).size, theirs
        assert theirs.stat().st_size < 60_000


@pytest.mark.exhaustive
@pytest.mark.rare
def test_its_scales_differ_and_its_known_pixels_stay(steered):
    def tiles(name, columns):
        """The images of a picture, [rows, columns, 8, 8]: 8x8, enlarged by 6, 2 pixels of white around."""
        picture = np.asarray(Image.open(steered[1] / name))[2:, 2:]
        rows = len(picture) // 50
        return picture.reshape(rows, 50, columns, 50).swapaxes(1, 2)[:, :, :48:6, :48:6]

    scales = tiles("labels.png", 10)
    assert len(np.unique(scales.reshape(4, -1), axis=0)) == 4
    original, shown, *completed = tiles("inpainting.png", 8).swapaxes(0, 1)
    assert len(completed) == 6
    assert (shown[:, 4:] == 128).all()
    for images in completed:
        np.testing.assert_array_equal(images[:, :4], original[:, :4])
        assert (images[:, 4:] != original[:, 4:]).any()
    np.testing.assert_array_equal(tiles("from_image.png", 10)[0, :6], original)


@pytest.mark.exhaustive
@pytest.mark.rare
def test_its_figures_come_from_a_command(steered, capsys, monkeypatch):
    monkeypatch.setattr(steering, "STARTS", (0.5,))
    monkeypatch.setattr(steering, "ITERATIONS", (1,))
    monkeypatch.chdir(steered[1])
    steering.main(["--workdir=runs/digits", "--num=20", "--steps=12"])
    printed = capsys.readouterr().out
    shares = [float(share) for share in re.findall(r"(\S+) %", printed)]
    assert len(shares) == 5
    assert shares[0] >= 90  # digits are what they are
    assert max(shares[1:]) <= 75  # and networks that learned nothing do not leave them so
    assert "python -m experiments.steering --workdir runs/digits" in GUIDANCE


def test_its_program_is_shortened_by_the_lengths_of_chains_alone():
    for long in SHORTER:
        assert GUIDANCE.count(long) == 1, long
    assert GUIDANCE.count("\n```") == 2 * len(BLOCK.findall(GUIDANCE))


@pytest.mark.parametrize("line", TOLD, ids=lambda line: line.split("diffusion_jax.")[1][:44])
def test_its_commands_are_the_ones_that_are(line):
    python, dash_m, module, *arguments = shlex.split(line)
    assert (python, dash_m) == ("python", "-m")
    if MAINS[module] is train.main:
        file = arguments[arguments.index("--config") + 1]
        assert f"\n  {line}\n" in (DOCS.parent / file).read_text()
    else:
        options = sample._parser().parse_args(arguments)
        for folder in filter(None, (options.workdir, options.classifier)):
            assert any(f"--workdir {folder}" in line for line in TOLD if "train" in line), folder
