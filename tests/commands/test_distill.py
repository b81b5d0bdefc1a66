"""Students from the command line: stages in turn, resumed, drawn from, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax import distill, sample, train
from diffusion_jax.config import load
from diffusion_jax.methods.few_step import teachers
from diffusion_jax.training import held
from tests.commands.test_cli import run

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

TINY = """
from diffusion_jax.data import sources
from diffusion_jax.diffusion import guidance, parameterizations
from diffusion_jax.methods import edm, pixels
from diffusion_jax.methods import guided as conditional
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.ddpm import with_table
from diffusion_jax.methods.few_step import consistency, guided, lcm, progressive, teachers
from diffusion_jax.methods.guided import classifier_free
from tests import tiny

NULL = guidance.replacing(label=10)


def small(config):
    config.train.steps = 2
    config.log.samples = 0
    config.log.checkpoint_every = 0
    return config


def parts(config):
    return pixels.data(config, sources.digits), pixels.unet(config)


def labelled(config):
    return guided.labelled(config, sources.digits, 10), guided.network(config, 10)

"""
CONFIGS = {
    "teacher": """
def get_config():
    return small(tiny.get_config())

def build(config):
    return progressive.build_teacher(config, *parts(config))
""",
    "eps": """
def get_config():
    return small(tiny.get_config())

def build(config):
    eps = parameterizations.eps(progressive.SCHEDULE, parameterizations.angle(progressive.SCHEDULE))
    return compose(config, progressive.teacher(config, *parts(config))._replace(parameterization=eps))
""",
    "student": """
def get_config():
    config = small(progressive.with_steps(tiny.get_config()))
    config.distill.stages = (2, 1)
    config.distill.updates = (2, 3)
    return config

def build(config):
    return progressive.build(config, *parts(config))
""",
    "edm": """
def get_config():
    return small(tiny.get_config())

def build(config):
    return edm.build(config, sources.digits)
""",
    "consistency": """
def get_config():
    return small(consistency.with_target(tiny.get_config()))

def build(config):
    return compose(config, consistency.distilled(config, *parts(config)))
""",
    "ect": """
def get_config():
    return small(teachers.with_teacher(tiny.get_config()))

def build(config):
    return compose(config, consistency.tuned(config, *parts(config), each=1))
""",
    "guided_teacher": """
def get_config():
    return small(tiny.get_config())

def build(config):
    return compose(config, classifier_free(progressive.teacher(config, *labelled(config)), NULL))
""",
    "guided": """
def get_config():
    return small(guided.with_scales(teachers.with_teacher(tiny.get_config())))

def build(config):
    data, teacher = labelled(config)
    return compose(config, guided.method(config, data, guided.student_of(teacher), teacher, NULL))
""",
    "guided_student": """
def get_config():
    config = small(guided.with_scales(progressive.with_steps(tiny.get_config())))
    config.distill.stages = (2,)
    return config

def build(config):
    data, teacher = labelled(config)
    return compose(config, guided.halved(config, data, guided.student_of(teacher)))
""",
    "table": """
def get_config():
    return small(conditional.with_guidance(tiny.get_config()))

def build(config):
    data, model = labelled(config)
    return conditional.build(config, data, 10, model.clone(out_channels=2))
""",
    "lcm": """
def get_config():
    return small(guided.with_scales(lcm.with_entries(with_table(tiny.get_config()))))

def build(config):
    data, model = labelled(config)
    teacher = conditional.conditional(config, data, 10, model.clone(out_channels=2))
    return compose(config, lcm.guided(config, teacher, config.diffusion.timesteps, NULL))
""",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Configs, and four trained teachers."""
    root = tmp_path_factory.mktemp("distill")
    for name, text in CONFIGS.items():
        (root / f"{name}.py").write_text(TINY + text)
    for name in ("teacher", "eps", "edm", "guided_teacher"):
        assert trained(root, name) == 0
    return root


@pytest.fixture(scope="module")
def students(root):
    """The same folder, with two students."""
    assert trained(root, "consistency", "edm") == 0
    assert trained(root, "guided", "guided_teacher") == 0
    return root


def trained(root, name, teacher=None, folder=None, *more):
    given = [f"--config.distill.teacher={root / teacher}"] if teacher else []
    return run(train.main, "--config", root / f"{name}.py", "--workdir", root / (folder or name), *given, *more)


def images(root, folder, *options):
    out = root / "drawn" / "_".join([folder.replace("/", "_"), *map(str, options)])
    assert run(sample.main, "--workdir", root / folder, "--num", 2, "--quiet", "--out", out, *options) == 0
    return np.load(out / "samples.npz")["images"].astype(int)


def saved(folder):
    """The paths of all arrays in a run's only checkpoint, as it lists them."""
    (step,) = (folder / "checkpoints").glob("[0-9]*")
    trees = [json.loads(path.read_text())["tree_metadata"] for path in step.rglob("_METADATA")]
    return {name for tree in trees for name in tree}


@pytest.mark.rare
def test_stages_are_runs_one_from_another(root, capsys):
    command = ("--config", root / "student.py", "--teacher", root / "teacher", "--workdir", root / "students")
    assert run(distill.main, *command) == 0
    assert "| 1 | 3 |" in capsys.readouterr().out
    table = json.loads((root / "students" / "stages.json").read_text())
    assert [(stage["steps"], stage["step"]) for stage in table["stages"]] == [(2, 2), (1, 3)]
    before = {path: path.read_bytes() for path in (root / "students").rglob("held.safetensors")}
    assert len(before) == 2

    # Stopped between the two: the second stage is made again, the first is not.
    shutil.rmtree(root / "students" / "steps_1")
    assert run(distill.main, *command) == 0
    assert "step 2 is reached already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before

    # The teacher is held once, and in no checkpoint.
    assert set(held.load(root / "students" / "steps_2", dict)) == {teachers.NAME}
    names = saved(root / "students" / "steps_2")
    assert any("conv_0" in name for name in names)
    assert not any(teachers.NAME in name for name in names)

    # A student knows its own steps alone.
    assert images(root, "students/steps_2").shape == (2, 8, 8, 1)
    assert run(sample.main, "--workdir", root / "students" / "steps_2", "--steps", 4) == 2
    assert "distilled for 2 steps, and wrong in 4" in capsys.readouterr().err


@pytest.mark.rare
def test_a_run_needs_no_teacher_once_it_has_begun(students, tmp_path):
    """Moved away, the student resumes and draws; so it does when it has itself been moved."""
    root = students
    shutil.copytree(root / "consistency", tmp_path / "moved")
    config = root / "consistency.py"
    again = ("--config", config, "--workdir", tmp_path / "moved", "--config.train.steps=3")
    assert run(train.main, *again, "--config.distill.teacher=nowhere") == 0
    assert (tmp_path / "moved" / "checkpoints" / "3").is_dir()
    one, two = (images(root, "consistency", "--steps", steps) for steps in (1, 2))
    assert (one != two).any()


@pytest.mark.rare
def test_ect_starts_as_its_teacher(root):
    method = load(root / "ect.py").build(load(root / "ect.py").get_config()).method
    assert method.held() == {}
    assert trained(root, "ect", "edm", None, "--config.model.dropout=0.2") == 0  # which is no part of the teacher
    assert images(root, "ect").shape == (2, 8, 8, 1)


@pytest.mark.rare
def test_a_guided_student_is_told_its_scale(students, capsys):
    root = students
    weak, strong = (images(root, "guided", "--steps", 2, "--guidance", scale) for scale in (1, 5))
    assert weak.shape == (2, 8, 8, 1)
    assert run(sample.main, "--workdir", root / "guided", "--guidance", 7) == 2
    assert "guidance 7: this model knows scales from 1 to 5" in capsys.readouterr().err
    command = ("--config", root / "guided_student.py", "--teacher", root / "guided", "--workdir", root / "halves")
    assert run(distill.main, *command) == 0
    assert images(root, "halves/steps_2", "--guidance", 3).shape == strong.shape


@pytest.mark.rare
def test_a_latent_consistency_student_is_told_its_scale(root, capsys):
    assert trained(root, "table") == 0
    assert trained(root, "lcm", "table") == 0
    assert images(root, "lcm", "--steps", 2, "--guidance", 5, "--label", 3).shape == (2, 8, 8, 1)
    for option, value, said in (("--guidance", 7, "knows scales from 1 to 5"), ("--steps", 50, "must lie in 1, ...")):
        assert run(sample.main, "--workdir", root / "lcm", option, value) == 2
        assert said in capsys.readouterr().err


REFUSED = {
    "no teacher": ("consistency", None, [], "there is no teacher; give the work directory of one"),
    "a teacher that has moved": ("consistency", "elsewhere", [], "say where it has moved"),
    "another network": ("consistency", "edm", ["--config.model.channels=16"], "channels = 8 there, 16 here"),
    "another schedule": ("consistency", "teacher", [], "was trained on another schedule of noise"),
    "other data": ("student", "guided_teacher", [], "learned image uint8[8,8,1] and label"),
    "eps": ("student", "eps", [], "the output of the teacher in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_teacher_of_another_kind_is_one_line(root, name, capsys):
    config, teacher, more, said = REFUSED[name]
    assert trained(root, config, teacher, f"refused {name}", *more) == 2
    output = capsys.readouterr().err.strip().splitlines()
    assert len(output) == 1
    assert said in output[0]
    assert not (root / f"refused {name}").exists()


def test_stages_that_do_not_halve(root, capsys):
    command = ("--config", root / "student.py", "--teacher", root / "teacher", "--workdir", root / "never")
    assert run(distill.main, *command, "--config.distill.stages=8,3") == 2
    assert "a stage halves, and 3 is no half of 8" in capsys.readouterr().err
    assert not (root / "never").exists()
    assert run(distill.main, *command, "--config.distill.updates=8,3,5") == 2
    assert "give one number for each of the 2 stages, or none" in capsys.readouterr().err
    assert run(distill.main, *command, "--config.distill.steps=4") == 2
    assert "--config.distill.steps is set stage by stage" in capsys.readouterr().err
    assert run(distill.main, "--config", root / "edm.py", *command[2:]) == 2
    assert "has no distill.stages" in capsys.readouterr().err


def test_the_page_names_configs_that_there_are_and_its_python_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "how_to" / "few_steps.md").read_text()
    named = set(re.findall(r"configs/(\w+)\.py", page))
    assert {"progressive", "consistency", "ect", "guided_distillation", "meanflow"} <= named
    for name in named:
        assert (Path(__file__).parents[2] / "configs" / f"{name}.py").is_file()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "docs/how_to/few_steps.md", "exec"), {})
    assert "ddim" in capsys.readouterr().out
