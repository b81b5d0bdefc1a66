"""Progressive coding and generation (DDPM, section 4.3, figures 5 and 6, table 4): rate against distortion.

  python -m experiments.tables.progressive --workdir runs/digits
  python -m experiments.tables.progressive --workdir runs/cifar --batch 512

Test images are sent along the chain, noise first: after each step so many bits an entry have been received (the
terms of the bound so far), and the receiver's estimate of the image is so far off (root mean square, of 0 to 255; the
mean is taken over entries and images, before the root). Needs a run whose likelihood "bound" is that of a chain.

Prints the table, and writes WORKDIR/tables/rate_distortion.png, and x0_hat.png: what estimates of a few samples look
like while they are drawn.

Expect of the digits 2.9 bits received and an RMSE of 1.0 at the end, 0.39 bits and 20.9 after nine tenths of the
steps. A minute and a half for 200 images (--examples 200) on two busy CPU cores.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffusion_jax.app import cli, cpu, sampling
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.data import images
from diffusion_jax.diffusion import samplers
from diffusion_jax.evaluation import quality
from diffusion_jax.methods.compose import Chain
from diffusion_jax.training.experiment import SampleRequest
from experiments.tables import shared

# DDPM's table 4, CIFAR-10 test images: steps of 1000 -> (bits/dim received, RMSE).
PAPER = {
    100: (0.00000, 67.60125),
    200: (0.00013, 60.97170),
    300: (0.00081, 54.18826),
    400: (0.00282, 46.12765),
    500: (0.00716, 38.03236),
    600: (0.01507, 30.80948),
    700: (0.02866, 24.43656),
    800: (0.05415, 18.47482),
    900: (0.11994, 12.02277),
    1000: (1.77581, 0.95136),
}


class Curve(NamedTuple):
    """Of each example: the bound and its parts [B]; in `terms`, [B, 2, N], bits received and mean squared error."""

    total: jax.Array
    rate: jax.Array
    distortion: jax.Array
    terms: jax.Array


def main(arguments: list[str]):
    """The command `python -m experiments.tables.progressive`."""
    options = _parser().parse_args(arguments)
    run = shared.opened_run(options)
    if "bound" not in run.experiment.measures.likelihoods:
        known = ", ".join(run.experiment.measures.likelihoods) or "none"
        raise InputError(f"this table needs the likelihood bound, of a chain; {options.workdir} has {known}")
    weights = run.averaged()
    source = run.experiment.data.source("test")
    count = min(len(source), options.examples or len(source))
    function = curve(run.experiment.measures.likelihoods["bound"](options.steps))
    found = quality.likelihood(
        function, weights.params, run.experiment.data, source, count, options.batch, options.seed
    )
    received, rmse = found["terms"][0], 127.5 * np.sqrt(found["terms"][1])

    steps = len(received)
    shown = sorted({max(1, round(steps * part / 10)) for part in range(1, 11)})
    names = "bits received", "RMSE"
    table = {f"{n} of {steps}": dict(zip(names, (received[n - 1], rmse[n - 1]), strict=True)) for n in shown}
    print(f"Rate and distortion of {count} test images, {options.workdir}\n")
    print(shared.markdown("steps", table, digits=5))
    print(f"\nand {found['distortion']:.3f} bits an entry for the rest: {found['total']:.3f} without loss")
    print("\nThe paper's, CIFAR-10 test images (1.97 bits for the rest)\n")
    paper = {f"{n} of 1000": dict(zip(names, both, strict=True)) for n, both in PAPER.items()}
    print(shared.markdown("steps", paper, digits=5))

    folder = options.workdir / "tables"
    images.save_png(folder / "rate_distortion.png", plots(received, rmse))
    images.save_png(folder / "x0_hat.png", estimates(options, run, weights.params))
    line(f"{folder / 'rate_distortion.png'}, {folder / 'x0_hat.png'}")
    metrics = {
        "bound, bits an entry": found["total"],
        "bound, rate": found["rate"],
        "bound, distortion": found["distortion"],
        "RMSE": float(rmse[-1]),
    }
    how = {"likelihood": "bound", "split": "test", "examples": count, "steps": steps, "metrics": sorted(metrics)}
    subject = {"table": "progressive", "weights": weights.about, "weights_sha256": weights.sha256}
    shared.write(options, subject, how, metrics, received=received.tolist(), rmse=rmse.tolist())


def curve(bound):
    """A bound of a chain as a function of which `quality.likelihood` takes the means."""

    def function(params, keys, x0, *cond):
        found = bound(params, keys, x0, *cond)
        if getattr(found, "mse_x0", None) is None:
            raise InputError("this run's bound is not that of a chain of images; it has no rate and distortion")
        terms = jnp.stack([found.received, found.mse_x0], axis=1)
        return Curve(found.total, found.rate, found.distortion, terms)

    return function


def estimating(chain: Chain) -> Chain:
    """The same chain, of which the estimates of x0 are shown in place of x_t."""
    sampler = chain.sampler

    def init(x):
        return sampler.init(x), jnp.zeros_like(x)

    def step(keys, state, plan, denoise):
        said = []

        def heard(x, t):
            said.append(denoise(x, t))
            return said[-1]

        inner = sampler.step(keys, state[0], plan, heard)
        return inner, said[0].mean

    return chain._replace(sampler=samplers.Sampler(sampler.plan, init, step, done=lambda state: state[1]))


def estimates(options, run: shared.Run, params) -> np.ndarray:
    """A picture, uint8 [H, W, C]: a row for each of a few samples, its estimates from noise to data."""
    name, chain = next(iter(shared.method_of(run).chains.items()))
    data, make = run.experiment.data, shared.sampler_of(run, shared.changed(chain, estimating))
    num = data.view.filmed
    keys = rng.per_example(rng.stream(jax.random.key(options.seed), "sample"), jnp.arange(num))
    with tqdm(total=100, unit="%", desc=name, dynamic_ncols=True) as bar:

        def report(share):
            bar.n = round(100 * float(share))
            bar.refresh()

        request = SampleRequest(num, options.steps, report=report)
        frames = sampling.film(make, params, keys, data.sample_condition(num, {}), request)
    # The first picture of a film is the noise, of which nothing has been estimated yet.
    return data.view.strip(jax.tree.map(lambda x: x[1:], frames))


def plots(received: np.ndarray, rmse: np.ndarray) -> np.ndarray:
    """Figure 5, uint8 [H, W, 3]: distortion and rate along the chain, and the one against the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), dpi=100)
    canvas = FigureCanvasAgg(figure)
    steps = np.arange(1, len(received) + 1)
    curves = (
        ("steps", steps, "distortion (RMSE)", rmse),
        ("steps", steps, "rate (bits an entry)", received),
        ("rate (bits an entry)", received, "distortion (RMSE)", rmse),
    )
    for place, (below, x, beside, y) in enumerate(curves, start=1):
        axes = figure.add_subplot(1, 3, place, xlabel=below, ylabel=beside)
        axes.plot(x, y, linewidth=1)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _parser():
    parser = cli.parser("experiments.tables.progressive", __doc__)
    add = parser.add_argument
    add("--steps", type=int, metavar="N", help="of the chain (all)")
    add("--examples", type=int, metavar="N", help="test images (all)")
    shared.add_run(parser)
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
