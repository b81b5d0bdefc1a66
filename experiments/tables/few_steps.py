"""Quality against steps: students, one-step models and their teachers in one table and one picture.

  python -m experiments.tables.few_steps --out runs/few_steps \
    --curve "DDIM=runs/v_prediction:ddim@1,2,4,8,50,1000" --curve "progressive=runs/progressive/steps_{}@1,2,4,8"

A curve is NAME=DIR[:SAMPLER]@STEPS. Where the folder's name has {}, each number of steps is a run of its own. The
distance is that of `--num` images to the training images, as `experiments.tables.samplers` measures it; each set of
images is kept in its run's folder, so that a table that was stopped goes on where it was. Writes few_steps.png and
few_steps.json into the folder `--out`.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from diffusion_jax.app import cli, cpu, resolve
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.training.experiment import SampleRequest
from experiments.tables import shared
from experiments.tables.shared import Cell, Run


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
    curves = curves_of(options)
    table, protocol = {}, {}
    for curve in curves:
        row, protocol = distances(curve, options)
        table[curve.name] = row
    print(f"{shared.METRIC} of {options.num} images, by steps\n")
    print(shared.markdown("", table, columns=columns_of(table)))
    options.out.mkdir(parents=True, exist_ok=True)
    save(picture(table, shared.METRIC), options.out / "few_steps.png")
    files.write_json(
        options.out / "few_steps.json",
        {"protocol": protocol, "seed": options.seed, "curves": [c._asdict() for c in curves], "metrics": table},
    )
    line(f"{options.out / 'few_steps.png'}, {options.out / 'few_steps.json'}")


def distances(curve: Curve, options) -> tuple[dict[str, float], dict]:
    """(steps -> distance, the protocol) of a curve."""
    found, protocol = {}, {}
    for its, run, cells in runs(curve, options):
        quality = shared.Quality(its, run.experiment)
        protocol = quality.protocol()
        found |= quality.table("few_steps", cells)[curve.name]
    return found, protocol


def runs(curve: Curve, options) -> Iterator[tuple[argparse.Namespace, Run, list[Cell]]]:
    """The runs of a curve: `options` with its folder, itself, and what it draws, a cell for each number of steps."""
    folders: dict[Path, list[int]] = {}
    for steps in curve.steps:
        folders.setdefault(Path(curve.folder.format(steps)), []).append(steps)
    for folder, numbers in folders.items():
        its = argparse.Namespace(**vars(options) | {"workdir": folder, "config": None})
        run = shared.opened_run(its)
        weights, sampling = run.averaged(), run.experiment.sampling
        make = sampling.samplers[resolve.sampler(sampling, curve.sampler)]
        yield its, run, [Cell(curve.name, str(steps), make, SampleRequest(1, steps), weights) for steps in numbers]


def columns_of(table: Mapping[str, Mapping[str, float]]) -> list[str]:
    """All numbers of steps in a table, rising."""
    return sorted({steps for row in table.values() for steps in row}, key=int)


def picture(
    table: Mapping[str, Mapping[str, float]], metric: str, levels: Mapping[str, float] | None = None
) -> Figure:
    """Distance against steps, both on logarithmic axes, and `levels` that do not depend on steps as dashed lines."""
    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"].colors)  # pairs of dark and light: a teacher, then its student
    for name, row in table.items():
        axes.plot([int(steps) for steps in row], list(row.values()), marker="o", label=name)
    for name, level in (levels or {}).items():
        axes.axhline(level, color="grey", linestyle="--", linewidth=1)
        axes.text(0.99, level, name, transform=axes.get_yaxis_transform(), ha="right", va="bottom", color="grey")
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel=metric)
    ticks = sorted({int(steps) for row in table.values() for steps in row})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    figure.legend(frameon=False, fontsize="small", loc="outside right upper")
    return figure


def save(figure: Figure, path: Path, dpi: int = 150):
    """A figure as a picture, PNG."""
    FigureCanvasAgg(figure)
    files.write(path, lambda file: figure.savefig(file, format="png", dpi=dpi))


def curves_of(options) -> list[Curve]:
    """The curves that `add_curves`' options ask for; `InputError` for what is none."""
    return [_curve(text) for text in options.curve]


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
    add_curves(parser, num=1000, batch=250)
    parser.add_argument(
        "--extractor", default="digits", metavar="WHICH", help="as of diffusion_jax.evaluate (%(default)s)"
    )
    return parser


def add_curves(parser, num: int, batch: int):
    """The options of a picture of curves."""
    add = parser.add_argument
    add("--curve", action="append", required=True, metavar="NAME=DIR[:SAMPLER]@STEPS", help="a line of the picture")
    add("--out", type=Path, required=True, metavar="DIR", help="where pictures and numbers go")
    add("--num", type=int, default=num, metavar="N", help="examples a set (%(default)s)")
    add("--batch", type=int, default=batch, metavar="B", help="examples at a time, over all devices (%(default)s)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
