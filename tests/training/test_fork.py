"""A fork goes on from where its parent stood; one that changes nothing is the parent, to the bit."""

import json
import re

import jax
import numpy as np
import pytest

from diffusion_jax import train
from diffusion_jax.app import cli
from diffusion_jax.config import values
from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.training import fork, workdir
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.loop import _template, fit
from tests import changed

pytestmark = pytest.mark.slow

SMALL = {"features": 8, "layers": 1}


def config(steps: int, **changed):
    config = points.default_config()
    config.model.update(SMALL)
    config.train.update({"batch_size": 8, "steps": steps, "steps_per_call": 1, "warmup_steps": 0, **changed})
    config.log.update({"every": 1, "checkpoint_every": 2, "sample_every": 0, "keep": 0})
    return config


def build(config):
    return points.build(config, source=lambda split: toys.swiss_roll(seed=0))


def trained(folder, config, **options):
    return jax.device_get(fit(build(config), config, folder, devices=jax.devices()[:1], **options))


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A run of 6 steps with a checkpoint every two, all of them kept, and its last state."""
    folder = tmp_path_factory.mktemp("parent")
    return folder, trained(folder, config(6))


def test_a_fork_that_changes_nothing_is_its_parent(parent, tmp_path):
    folder, whole = parent
    assert_same(trained(tmp_path, config(6), parent=fork.named(f"{folder}@2", False, tmp_path)), whole)
    told = json.loads((tmp_path / "config.json").read_text())["parent"]
    assert told == {"workdir": str(folder), "step": 2, "fresh_optimizer": False, "differs": {}}


def test_a_fork_with_other_values_resumes_exactly(parent, tmp_path):
    """4 and 2 steps of it are 6, also where it was stopped before its first step and its parent has gone on."""
    folder, whole = parent
    begun = fork.named(f"{folder}@2", False, tmp_path / "unbroken")
    unbroken = trained(tmp_path / "unbroken", config(6, learning_rate=1e-2), parent=begun)
    assert not np.array_equal(jax.tree.leaves(unbroken.params)[0], jax.tree.leaves(whole.params)[0])
    told = json.loads((tmp_path / "unbroken" / "config.json").read_text())["parent"]
    assert told["differs"] == {"train.learning_rate": [1e-3, 1e-2]}

    # Claimed, and killed before its first checkpoint: its parent is known, with --from and without.
    broken = tmp_path / "broken"
    workdir.claim(broken, values.checked(config(4, learning_rate=1e-2)), None, begun)
    assert fork.named(str(folder), False, broken) == begun
    trained(broken, config(4, learning_rate=1e-2))
    assert_same(trained(broken, config(6, learning_rate=1e-2)), unbroken)
    with pytest.raises(InputError, match="holds another run; give a new --workdir"):
        trained(broken, config(6, learning_rate=1e-2), parent=fork.named(f"{folder}@4", False, broken))


def test_an_optimiser_may_begin_anew_and_averages_are_taken_or_begun(parent, tmp_path):
    folder, _ = parent
    values = config(8, ema_decays=(0.5,))
    begun = fork.named(str(folder), True, tmp_path)
    state = fork.begin(begun, build(values), _template(build(values)))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        step, params = checkpoints.restore("params", state.params)
        _, ema = checkpoints.restore("ema", state.ema)
    assert (int(state.step), begun.step) == (step, 6)
    assert_same((state.params, state.ema, state.averages["0.5"]), (params, ema, params))
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(state.optimizer))
    kept = fork.begin(begun._replace(fresh_optimizer=False), build(values), _template(build(values)))
    assert int(jax.tree.leaves(kept.optimizer)[0]) == 6
    profiled = build(config(8, ema_profiles=(0.1,)))
    with pytest.raises(InputError, match=r"no average sigma_rel_0.1.*leave it out of --config.train.ema_profiles"):
        fork.begin(begun, profiled, _template(profiled))


ROLL = "configs/swiss_roll.py"
MISTAKES = {
    "is not a work directory": ["--from", "nowhere"],
    "there is no checkpoint of step 3 in .*; there are 2, 4, 6": ["--from", "{parent}@3"],
    "stood at step 6, and the fork goes on from there: raise train.steps=6": ["--from", "{parent}"],
    "checkpoint 6 ": ["--from", "{parent}", "--config.model.features=16", "--config.train.steps=8"],
    "give it with --from DIR": ["--fresh-optimizer"],
}


@pytest.mark.parametrize(("said", "arguments"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_writes_nothing(said, arguments, parent, tmp_path, capsys):
    given = [argument.format(parent=parent[0]) for argument in arguments]
    small = ["model.features=8", "model.layers=1", "train.batch_size=8", "train.steps=6"]
    small = [f"--config.{value}" for value in small]
    with pytest.raises(SystemExit, match="2"):
        cli.run(train.main, ["--config", ROLL, "--workdir", str(tmp_path / "new"), *small, *given])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(said, line), line
    assert not (tmp_path / "new").exists()


def test_never_is_never(tmp_path):
    """No lines and no checkpoint but the last, which is always saved."""
    never = config(3)
    never.log.update({"every": 0, "checkpoint_every": 0, "samples": 0, "sample_every": 1})
    trained(tmp_path, never)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert not (tmp_path / "samples").exists()


def test_a_refused_value_names_the_way(parent):
    with pytest.raises(InputError, match=f"go on with these elsewhere: --from {parent[0]} --workdir NEW"):
        trained(parent[0], config(6, learning_rate=1.0))


def test_steps_are_free_only_where_nothing_depends_on_them(parent, tmp_path):
    """A schedule that ends with the run reads train.steps while it is composed."""
    watched, read = values.watched(values.checked(config(6)))
    build(watched)
    assert "train.learning_rate" in read
    assert "train.steps" not in read
    assert watched.train.steps == 6
    assert "train.steps" in read
    workdir.claim(tmp_path, values.checked(config(6)), None)
    workdir.claim(tmp_path, values.checked(config(8)), None)
    with pytest.raises(InputError, match=r"train.steps = 8 there, 6 here.*--from"):
        workdir.claim(tmp_path, values.checked(config(6)), None, fixed=read & {"train.steps"})


def test_out_of_memory_is_one_line(tmp_path):
    def loss(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1125899906842624 bytes.")

    greedy = changed.task(build(config(2)), loss=loss)
    with pytest.raises(RunError, match=r"out of memory: lower train.batch_size.*there is no checkpoint yet"):
        fit(greedy, config(2), tmp_path, devices=jax.devices()[:1])
