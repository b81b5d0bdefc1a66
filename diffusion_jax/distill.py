"""Distil a trained model into students of fewer and fewer steps.

  python -m diffusion_jax.train --config configs/v_prediction.py --workdir runs/v_prediction
  python -m diffusion_jax.distill --config configs/progressive.py --teacher runs/v_prediction \
    --workdir runs/progressive
  python -m diffusion_jax.sample --workdir runs/progressive/steps_4

Every student is a run of its own, in the work directory under its number of steps: it learns to make two steps of the
one before it in one, and starts as that one. The stages are `distill.stages` of the config, and their updates
`distill.updates`, or `train.steps` each. Given again, the same command goes on where it stopped, between stages or
within one; other values go to all stages, as in `train`. At the end a table says what each student reached;
stages.json has it.
"""

from diffusion_jax.core import ending

if __name__ == "__main__":
    ending.at_once()  # before the rest is imported, which takes seconds

import itertools
from pathlib import Path

import jax
from ml_collections import ConfigDict

from diffusion_jax import config
from diffusion_jax.app import cli, cpu
from diffusion_jax.app.observers import observers
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.training import metrics
from diffusion_jax.training.loop import fit
from diffusion_jax.training.quick_eval import DISTANCE

TABLE = "stages.json"


def main(arguments: list[str]):
    """The command `python -m diffusion_jax.distill`."""
    options, overrides = _parser().parse_known_args(arguments)
    module = config.load(options.config)
    values = config.override(config.defaults(module), overrides)
    if "distill" not in values or "stages" not in values.distill:
        raise InputError(
            f"{options.config} has no distill.stages: one number of steps a student; see configs/progressive.py"
        )
    for name in ("steps", "teacher"):
        if any(text.startswith(f"--config.distill.{name}") for text in overrides):
            raise InputError(
                f"--config.distill.{name} is set stage by stage; give --config.distill.stages and --teacher"
            )
    stages = _checked(list(values.distill.stages))
    updates = _updates(values, len(stages))
    teacher, reached = str(options.teacher), []
    for number, (steps, num) in enumerate(zip(stages, updates, strict=True), 1):
        folder = options.workdir / f"steps_{steps}"
        line(f"stage {number} of {len(stages)}: a student of {steps} steps, from {teacher}")
        chosen = config.override(
            config.defaults(module),
            [
                *overrides,
                *(f"--config.distill.steps={steps}", f"--config.distill.teacher={teacher}"),
                f"--config.train.steps={num}",
            ],
        )
        fit(
            module.build(chosen),
            chosen,
            folder,
            config_file=options.config,
            fixed={"train.steps"},  # what a stage ended with has taught the next
            **observers(module, chosen, folder),
        )
        reached.append({"steps": steps, "workdir": str(folder)} | _last(folder, chosen))
        if jax.process_index() == 0:
            files.write_json(options.workdir / TABLE, {"teacher": str(options.teacher), "stages": reached})
        teacher = str(folder)
    if jax.process_index() == 0:
        print(_markdown(reached))


def _checked(stages: list[int]) -> list[int]:
    """Each half of the one before, as a stage halves."""
    for before, after in itertools.pairwise(stages):
        if 2 * after != before:
            raise InputError(
                f"distill.stages={','.join(map(str, stages))}: a stage halves, and {after} is no half of {before}"
            )
    return stages


def _updates(values: ConfigDict, stages: int) -> list[int]:
    """Those of each stage: `distill.updates`, or `train.steps` where that is empty."""
    updates = list(values.distill.updates)
    if updates and len(updates) != stages:
        raise InputError(
            f"distill.updates={','.join(map(str, updates))}: give one number for each of the {stages} stages, or none"
        )
    return updates or [values.train.steps] * stages


def _last(folder: Path, chosen: ConfigDict) -> dict:
    """What the run in `folder` logged last: its loss, and a Fréchet distance where it looked."""
    found: dict = {}
    for logged in metrics.read(folder / metrics.FILE):
        found |= {name: logged[name] for name in ("step", "loss", DISTANCE) if name in logged}
    return found


def _markdown(reached: list[dict]) -> str:
    rows = ["| steps | updates | loss | Fréchet distance | work directory |", "|---|---|---|---|---|"]
    for stage in reached:
        loss, distance = (f"{stage[name]:.4g}" if name in stage else "" for name in ("loss", DISTANCE))
        rows.append(f"| {stage['steps']} | {stage.get('step', '')} | {loss} | {distance} | {stage['workdir']} |")
    return "\n".join(rows)


def _parser():
    parser = cli.parser("diffusion_jax.distill", __doc__)
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="the students' config, with distill.stages")
    add(
        "--teacher",
        type=Path,
        required=True,
        metavar="DIR",
        help="work directory of the run that the first learns from",
    )
    add("--workdir", type=Path, required=True, metavar="DIR", help="where the students' runs go, steps_N each")
    return parser


if __name__ == "__main__":
    cpu.keep_memory()
    cli.run(main)
