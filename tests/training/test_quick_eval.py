"""Quick looks at quality during training: what is written, and that a resumed run knows the smallest so far."""

import json

import pytest

from diffusion_jax import train
from diffusion_jax.training import quick_eval
from tests import tiny
from tests.commands.test_cli import run

pytestmark = pytest.mark.slow

LARGE = tuple(f"--config.train.{x}" for x in ("learning_rate=0.01", "warmup_steps=1", "ema_decay=0.0"))
LOOKS = ("--config.log.evaluate_every=2", "--config.log.evaluate_num=12", "--config.log.extractor=digits")


def periodic(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: (line[quick_eval.DISTANCE], line[quick_eval.SMALLEST])
        for line in lines
        if quick_eval.DISTANCE in line
    }


@pytest.mark.exhaustive
def test_looks_are_the_same_in_a_resumed_run_and_the_smallest_is_kept(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    common = ("--config", tiny.__file__, *LOOKS, *LARGE)
    assert run(train.main, *common, "--workdir", whole, "--config.train.steps=6") == 0
    found = periodic(whole)
    assert sorted(found) == [2, 4, 6]
    distances = [found[step][0] for step in (2, 4, 6)]
    assert [found[step][1] for step in (2, 4, 6)] == [min(distances[: n + 1]) for n in range(3)]
    assert len(set(distances)) == 3
    for steps in (4, 6):
        assert run(train.main, *common, "--workdir", halves, f"--config.train.steps={steps}") == 0
    assert periodic(halves) == found


def test_the_smallest_does_not_come_from_steps_that_are_made_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert quick_eval.smallest(file, 10) == float("inf")
    lines = [{"step": 1, "loss": 0.5}, {"step": 2, quick_eval.DISTANCE: 3.0}, {"step": 4, quick_eval.DISTANCE: 1.0}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert quick_eval.smallest(file, 4) == 1.0
    assert quick_eval.smallest(file, 3) == 3.0


@pytest.mark.parametrize(("option", "said"), [("extractor=", "no extractor"), ("extractor=none.pth", "none.pth")])
def test_looks_without_an_extractor_are_refused(option, said, tmp_path, capsys):
    arguments = ("--config", tiny.__file__, "--workdir", tmp_path / "run", *LOOKS, f"--config.log.{option}")
    assert run(train.main, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
