"""docs/how_to/watching.md runs as it stands, with a stand-in for the service that it sends to."""

import json
import re
import sys
import types
from pathlib import Path

import pytest

from diffusion_jax import train
from diffusion_jax.app import cli

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how_to" / "watching.md").read_text()
SHORT = ["model.channels=8", "model.groups=4", "model.multipliers=(1,)", "train.batch_size=8", "train.steps=4"]
LOG = ["log.every=2", "log.sample_every=0", "train.steps_per_call=1"]


@pytest.mark.exhaustive
def test_the_config_file_sends_what_it_says(tmp_path, monkeypatch):
    logged, closed = [], []
    log = lambda values, step: logged.append((step, values))  # noqa: E731
    run = types.SimpleNamespace(log=log, finish=lambda: closed.append(1))
    service = types.SimpleNamespace(init=lambda **told: logged.append(told) or run, Image=lambda image: image.shape)
    monkeypatch.setitem(sys.modules, "wandb", service)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    file, workdir = tmp_path / "watched.py", tmp_path / "watched"
    file.write_text(code.replace("Hook(500,", "Hook(2,"))
    options = [f"--config.{value}" for value in SHORT + LOG]
    cli.run(train.main, ["--config", str(file), "--workdir", str(workdir), *options])
    told, *rest = logged
    assert told["id"] == "watched"
    assert told["config"]["train"]["steps"] == 4
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [{"step": step, **values} for step, values in rest if "loss" in values] == lines
    assert [line["step"] for line in lines] == [2, 4]
    norms = [json.loads(line) for line in (workdir / "norms.jsonl").read_text().splitlines()]
    assert [line["step"] for line in norms] == [2, 4]
    assert norms[0]["norm"] != norms[1]["norm"] > 0
    assert closed == [1]
