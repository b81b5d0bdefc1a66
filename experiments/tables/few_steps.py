"""Quality against steps: students, one-step models and their teachers in one table and one picture.

  python -m experiments.tables.few_steps --out runs/few_steps \
    --curve "DDIM=runs/v_prediction:ddim@1,2,4,8,50,1000" --curve "progressive=runs/progressive/steps_{}@1,2,4,8"

A curve is NAME=DIR[:SAMPLER]@STEPS. Where the folder's name has {}, each number of steps is a run of its own. The
distance is that of `--num` images to the training images, as `experiments.tables.samplers` measures it; each set of
images is kept in its run's folder, so that a table that was stopped goes on where it was. Writes few_steps.png and
few_steps.json into the folder `--out`.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffusion_jax.app import cli, cpu, resolve
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.training.experiment import SampleRequest
from experiments.tables import shared
from experiments.tables.shared import Cell

FLOOR = "training images"


class Curve(NamedTuple):
    """A line of the picture.

    Attributes:
      name: in the legend.
      folder: of the run, with "{}" where each number of steps has its own.
      sampler: its name, or None for the run's first.
      steps: numbers of steps.
    """

    name: str
    folder: str
    sampler: str | None
    steps: list[int]


def main(arguments: list[str]):
    """The command `python -m experiments.tables.few_steps`."""
    options = _parser().parse_args(arguments)
    curves = [_curve(text) for text in options.curve]
    table, protocol = {}, {}
    for curve in curves:
        row, protocol = distances(curve, options)
        table[curve.name] = row
    print(f"{shared.METRIC} of {options.num} images, by steps\n")
    columns = sorted({steps for row in table.values() for steps in row}, key=int)
    print(shared.markdown("", table, columns=columns))
    options.out.mkdir(parents=True, exist_ok=True)
    picture(curves, table, options.out / "few_steps.png")
    files.write_json(
        options.out / "few_steps.json",
        {"protocol": protocol, "seed": options.seed, "curves": [c._asdict() for c in curves], "metrics": table},
    )
    line(f"{options.out / 'few_steps.png'}, {options.out / 'few_steps.json'}")


def distances(curve: Curve, options) -> tuple[dict[str, float], dict]:
    """(steps -> distance, the protocol) of a curve."""
    found, protocol, quality, run, weights = {}, {}, None, None, None
    for steps in curve.steps:
        folder = Path(curve.folder.format(steps))
        if quality is None or "{}" in curve.folder:
            its = argparse.Namespace(**vars(options) | {"workdir": folder, "config": None})
            run = shared.opened_run(its)
            quality, weights = shared.Quality(its, run.experiment), run.averaged()
            protocol = quality.protocol()
        make = run.experiment.sampling.samplers[resolve.sampler(run.experiment.sampling, curve.sampler)]
        cell = Cell(curve.name, str(steps), make, SampleRequest(1, steps), weights)
        found |= quality.table("few_steps", [cell])[curve.name]
    return found, protocol


def picture(curves: list[Curve], table, path: Path):
    """Distance against steps, both on logarithmic axes."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        row = table[curve.name]
        axes.plot([int(steps) for steps in row], list(row.values()), marker="o", label=curve.name)
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel=shared.METRIC)
    ticks = sorted({int(steps) for row in table.values() for steps in row})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    FigureCanvasAgg(figure)
    files.write(path, lambda file: figure.savefig(file, format="png", dpi=150))


def _curve(text: str) -> Curve:
    name, equals, rest = text.partition("=")
    place, at, numbers = rest.rpartition("@")
    folder, _, sampler = place.partition(":")
    try:
        steps = [int(number) for number in numbers.split(",")]
    except ValueError:
        steps = []
    if not (name and equals and at and folder and steps and min(steps) > 0):
        raise InputError(f"--curve {text[:100]!r}: give NAME=DIR[:SAMPLER]@STEPS, such as DDIM=runs/v:ddim@1,2,4,8")
    return Curve(name, folder, sampler or None, steps)


def _parser():
    parser = cli.parser("experiments.tables.few_steps", __doc__)
    add = parser.add_argument
    add("--curve", action="append", required=True, metavar="NAME=DIR[:SAMPLER]@STEPS", help="a line of the picture")
    add("--out", type=Path, required=True, metavar="DIR", help="where picture and numbers go")
    add("--num", type=int, default=1000, metavar="N", help="images a set (%(default)s)")
    add("--extractor", default="digits", metavar="WHICH", help="as of diffusion_jax.evaluate (%(default)s)")
    add("--batch", type=int, default=250, metavar="B", help="examples at a time, over all devices (%(default)s)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
