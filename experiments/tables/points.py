"""Quality against steps of points on the swiss roll: students, one-step models and their teachers.

  python -m experiments.tables.points --out runs/points \
    --curve "DDIM=runs/swiss_roll_v:ddim@1,2,4,8,50,1000" \
    --curve "progressive=runs/swiss_roll_progressive/steps_{}@1,2,4,8"

A curve is as of `experiments.tables.few_steps`. Two numbers are measured of `--num` points, both in the units of the
plane:

  sliced W1       the Wasserstein-1 distance of their shadows to those of as many test points, averaged over 64
                  directions (Rabin et al. 2011): what is missing, in excess or in the wrong place
  off the curve   their mean distance from the spiral: what lies between the turns. The roll's own noise has 0.04

and the same of two controls: training points, the floor, and a Gaussian with their mean and covariance, which
a Fréchet distance of points cannot tell from them. Where a run is told labels, there is also the share of points that
lie on the half turn they were told. Writes points.png, clouds.png and points.json into the folder `--out`.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from diffusion_jax.app import cli, cpu, sampling
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.data import toys
from diffusion_jax.methods.points import LIMIT
from experiments.tables import few_steps, shared
from experiments.tables.few_steps import Curve

METRIC, OFF, AGREE = "sliced W1", "off the curve", "on the half turn told"
FLOOR, GAUSSIAN = "training points", "Gaussian fit"
DIRECTIONS = 64
CURVE = toys.angles(2000)  # at most 0.01 apart in the plane


def main(arguments: list[str]):
    """The command `python -m experiments.tables.points`."""
    options = _parser().parse_args(arguments)
    curves, test = few_steps.curves_of(options), _points("test", options.num)
    controls = {name: measured(points, test) for name, points in _controls(options.num, options.seed).items()}
    clouds = {curve.name: drawn(curve, options) for curve in curves}
    table = {
        name: {steps: measured(points, test, label) for steps, (points, label) in row.items()}
        for name, row in clouds.items()
    }
    for metric in (METRIC, OFF, AGREE):
        if chosen := _only(table, metric):
            print(shared.markdown(metric, chosen, digits=3, columns=few_steps.columns_of(chosen)), "\n")
    print(shared.markdown("", controls, digits=3))
    options.out.mkdir(parents=True, exist_ok=True)
    levels = {name: found[METRIC] for name, found in controls.items()}
    few_steps.save(few_steps.picture(_only(table, METRIC), METRIC, levels), options.out / "points.png")
    few_steps.save(_panels(clouds), options.out / "clouds.png", dpi=100)
    about = {"num": options.num, "seed": options.seed, "curves": [curve._asdict() for curve in curves]}
    files.write_json(options.out / "points.json", {**about, "controls": controls, "metrics": table})
    line(", ".join(str(options.out / name) for name in ("points.png", "clouds.png", "points.json")))


def drawn(curve: Curve, options) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Steps -> (points [num, 2], the labels [num] that they were told or None)."""
    found, keys = {}, shared.sample_keys(options)
    for _, run, cells in few_steps.runs(curve, options):
        if run.experiment.data.shape != (2,):
            raise InputError(f"the run in {run.folder} draws no points; use experiments.tables.few_steps")
        cond = run.experiment.data.sample_condition(options.num, {})
        label = cond[0].get("label") if cond else None
        for cell in cells:
            request = cell.request._replace(guidance_scale=options.guidance)
            line(f"{cell.row}, {cell.column} steps")
            points = sampling.draw(cell.make, cell.weights.params, keys, cond, request, options.batch, quiet=True)
            found[cell.column] = points, label
    return found


def measured(points: np.ndarray, test: np.ndarray, label: np.ndarray | None = None) -> dict[str, float]:
    """Metric -> number of points [N, 2], beside as many test points."""
    off, angle = nearest(points)
    found = {METRIC: sliced_wasserstein(points, test), OFF: float(off.mean())}
    return found if label is None else found | {AGREE: float((toys.half_turn(angle) == label).mean())}


def sliced_wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """The mean Wasserstein-1 distance of two sets' projections, both [N, 2], over even directions."""
    angle = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    across = np.stack([np.cos(angle), np.sin(angle)])
    return float(np.abs(np.sort(one @ across, 0) - np.sort(other @ across, 0)).mean())


def nearest(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distance, angle) of the spiral's nearest place to each of points [N, 2]."""
    curve, found = toys.spiral(CURVE), []
    for some in np.array_split(points, max(1, len(points) // 500)):
        apart = np.linalg.norm(some[:, None] - curve, axis=-1)
        found.append((apart.min(1), CURVE[apart.argmin(1)]))
    off, angle = (np.concatenate(part) for part in zip(*found, strict=True))
    return off, angle


def _points(split: str, num: int) -> np.ndarray:
    source = toys.swiss_rolls(split)
    if not 2 <= num <= len(source):
        raise InputError(f"--num {num}: there are {len(source):,} points to compare with; give 2 to as many")
    return np.stack([source[i]["point"] for i in range(num)])


def _controls(num: int, seed: int) -> dict[str, np.ndarray]:
    train = _points("train", num)
    fit = np.random.default_rng(seed).multivariate_normal(train.mean(0), np.cov(train.T), num)
    return {FLOOR: train, GAUSSIAN: fit}


def _only(table, metric: str) -> dict[str, dict[str, float]]:
    """A metric's rows, without those that do not have it."""
    rows = {name: {steps: m[metric] for steps, m in row.items() if metric in m} for name, row in table.items()}
    return {name: row for name, row in rows.items() if row}


def _panels(clouds: Mapping[str, Mapping[str, tuple]]) -> Figure:
    """The points themselves: a row a curve, a column a number of steps."""
    columns = few_steps.columns_of(clouds)
    figure = Figure(figsize=(1.1 * len(columns), 1.1 * len(clouds)), layout="constrained")
    grid = figure.subplots(len(clouds), len(columns), squeeze=False)
    for axes_row, (name, row) in zip(grid, clouds.items(), strict=True):
        axes_row[0].set_ylabel(name, fontsize=6)
        for axes, steps in zip(axes_row, columns, strict=True):
            axes.set(xticks=(), yticks=(), xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal")
            if steps in row:
                points, label = row[steps]
                axes.scatter(*points[:2000].T, s=0.3, c=None if label is None else label[:2000], linewidths=0)
            else:
                axes.set_frame_on(False)
    for axes, steps in zip(grid[0], columns, strict=True):
        axes.set_title(f"{steps}", fontsize=6)
    return figure


def _parser():
    parser = cli.parser("experiments.tables.points", __doc__)
    few_steps.add_curves(parser, num=5000, batch=5000)
    parser.add_argument("--guidance", type=float, metavar="G", help="of all runs (each run's default)")
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
