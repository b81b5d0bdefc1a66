"""The code in docs/processes.md runs as it stands: its files, its commands and its checks."""

import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import cli, processes, sample, train

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "processes.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
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
    rows = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    files = Path(processes.__file__).parent.glob("*.py")
    for name in {path.stem for path in files} - {"__init__", "core", "degrade"}:
        assert f"| `{name}` |" in rows, f"docs/processes.md does not list {name}"


def test_every_file_it_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (DOCS / target).exists(), target
