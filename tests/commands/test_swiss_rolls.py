"""The configs of points from the command line: students that train, resume to the bit, draw, and are measured."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from diffusion_jax import config, distill, sample, train
from diffusion_jax.app import resolve
from experiments.tables import points
from tests.commands.test_cli import run

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.rare]

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = (
    *("model.features=8", "model.layers=1", "train.batch_size=8", "train.steps_per_call=1", "data.threads=0"),
    *("log.samples=0", "log.checkpoint_every=0", "log.every=1"),
)
SMALL = tuple(f"--config.{value}" for value in SMALL)
TEACHERS = {"consistency": "edm", "guided_distillation": "guided"}


def trained(root, name, steps, folder=None):
    """The run of `configs/swiss_roll_NAME.py` up to so many steps, after its teacher's."""
    given = [f"--config.train.steps={steps}", "--config.train.warmup_steps=0", "--config.train.learning_rate=0.1"]
    if name in TEACHERS:
        given.append(f"--config.distill.teacher={trained(root, TEACHERS[name], 2)}")
    folder = root / (folder or name)
    command = ("--config", CONFIGS / f"swiss_roll_{name}.py", "--workdir", folder, *SMALL, *given)
    assert run(train.main, *command) == 0
    return folder


def drawn(folder, out, *options):
    assert run(sample.main, "--workdir", folder, "--num", 6, "--quiet", "--out", out, *options) == 0
    return np.load(out / "samples.npz")["points"]


@pytest.mark.parametrize("name", ["consistency", "meanflow"])
def test_a_student_of_points_resumes_to_the_bit_and_draws(name, tmp_path):
    whole, halves = trained(tmp_path, name, 4), tmp_path / "halves"
    for steps in (2, 4):
        trained(tmp_path, name, steps, halves)
    module = config.load(CONFIGS / f"swiss_roll_{name}.py")
    values = config.override(module.get_config(), SMALL)
    experiment = module.build(values)
    before, one, other = (
        resolve.parameters(folder, experiment)[1] for folder in (tmp_path / TEACHERS.get(name, name), whole, halves)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    if name in TEACHERS:  # control: it has moved from its teacher
        assert any((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(one), strict=True))
    first, second = (drawn(halves, tmp_path / "drawn" / str(steps), "--steps", steps) for steps in (1, 2))
    assert first.shape == (6, 2)
    assert (first != second).any()


def test_half_turns_are_told_at_any_scale(tmp_path, capsys):
    folder = trained(tmp_path, "guided_distillation", 3)
    draw = ("--steps", 2, "--label", "0,2")
    weak, strong = (drawn(folder, tmp_path / f"{g}", *draw, "--guidance", g) for g in (1, 5))
    assert weak.shape == (6, 2)
    assert (weak != strong).any()
    assert run(sample.main, "--workdir", folder, "--label", 4) == 2
    assert "there is no label 4: they run from 0 to 2, and 3 tells nothing" in capsys.readouterr().err


def test_stages_of_points_are_one_curve_of_the_table(tmp_path, capsys):
    teacher = trained(tmp_path, "v", 2)
    students = ("--config", CONFIGS / "swiss_roll_progressive.py", "--workdir", tmp_path / "students", *SMALL)
    more = ("--config.train.steps=2", "--config.distill.stages=2,1")
    assert run(distill.main, *students, "--teacher", teacher, *more) == 0
    curves = ("--curve", f"DDIM={teacher}@2", "--curve", f"halved={tmp_path}/students/steps_{{}}@1,2")
    assert run(points.main, "--out", tmp_path / "out", "--num", 6, *curves) == 0
    assert "| halved |" in capsys.readouterr().out
    # The table's points are those that `sample` draws with the same seed.
    found = json.loads((tmp_path / "out" / "points.json").read_text())["metrics"]["halved"]["1"]
    same = drawn(tmp_path / "students" / "steps_1", tmp_path / "drawn")
    assert found == pytest.approx(points.measured(same, points._points("test", 6)), rel=1e-5)
    for name in ("points.png", "clouds.png"):
        assert (tmp_path / "out" / name).stat().st_size
