"""Does a likelihood know its error? What solvers say of it beside what it is.

  python -m experiments.likelihood_errors

The data are a mixture of two normals in four dimensions, one of std 0.3 and one of std 0.05, whose denoiser is known.
A network that is 1 % wrong says what it should (eps, x0, v, score, or EDM's F) and 0.01 sin(3 z + phase) besides, in
units of what it says: 1, and 1 / sigma for the score. Everything is in float64, with the exact trace, so that what is
found is the solver's error alone: the distance to RK4 in 800 steps. Where alpha(1) = 0 the walk starts at t = 0.999.
A flow depends on levels of noise only, so that tables of betas are compared with the same walk on a schedule that is
known everywhere.

Each entry is error found / error said, in nats an entry, means over 16 points, of the kind of network whose found /
said is the largest. Then the same with Hutchinson's trace: what is found is the distance to the exact trace, and what
is said holds the noise. What to expect stands in docs/concepts/likelihoods.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.app import cli
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.diffusion import likelihood, schedules
from diffusion_jax.diffusion.schedules import Schedule

LEVEL = 1e-3  # of noise, where walks begin
PARTS, STDS = np.array([0.3, 0.7]), np.array([0.3, 0.05])
MEANS = np.array([[-0.8, 0.5, 0.1, 0.0], [0.6, -0.2, 0.0, 0.3]])
# How much an error of what a network says is of the denoiser's mean, at the noise level n = sigma / alpha.
KINDS = {
    "eps": lambda n: n,
    "score": lambda n: n,
    "x0": lambda n: 1.0 + 0 * n,
    "v": lambda n: n / jnp.sqrt(1 + n**2),
    "edm": lambda n: 0.5 * n / jnp.sqrt(0.25 + n**2),
}
WRONG = (0.0, 0.003, 0.01, 0.03)
SCHEDULES = {
    "VP linear": schedules.vp_linear(),
    "sub-VP": schedules.sub_vp(),
    "VE": schedules.ve(),
    "EDM": schedules.edm(),
    "cosine": schedules.cosine(),
    "sigmoid": schedules.sigmoid(),
    "flow": schedules.flow(),
}
TABLES = {
    "linear table": schedules.from_betas(schedules.linear_betas(1000)),
    "cosine table": schedules.from_betas(schedules.cosine_betas(1000)),
}


class Row(NamedTuple):
    """Of a schedule and a solver: nats an entry [kinds, WRONG], and evaluations of the network."""

    schedule: str
    solver: str
    found: np.ndarray
    said: np.ndarray
    evaluations: float


def points(count: int, seed: int = 0) -> np.ndarray:
    """[count, 4], of the data and a little noise."""
    rng = np.random.default_rng(seed)
    part = (rng.random(count) > PARTS[0]).astype(int)
    return MEANS[part] + np.hypot(STDS[part], LEVEL)[:, None] * rng.normal(size=(count, 4))


def networks(schedule: Schedule, count: int, kinds=KINDS, wrong=WRONG) -> Callable:
    """The denoiser of a batch [kinds x wrong x count]: each example has a network of its own."""
    kind = np.repeat(np.arange(len(kinds)), len(wrong) * count)
    share = np.tile(np.repeat(wrong, count), len(kinds))

    def denoise(x, t):
        alpha, sigma = (expand(jnp.broadcast_to(f(t), len(x)), x) for f in (schedule.alpha, schedule.sigma))
        var = (alpha * STDS) ** 2 + sigma**2
        gap = x[:, None] - alpha[..., None] * MEANS
        parts = jax.nn.softmax(jnp.log(PARTS) - 0.5 * (gap**2).sum(-1) / var - 2 * jnp.log(var))
        each = MEANS + (alpha * STDS**2 / var)[..., None] * gap
        noise = (sigma / alpha)[:, 0]
        size = share * jnp.stack([f(noise) for f in kinds.values()])[kind, jnp.arange(len(x))]
        bend = jnp.sin(3 * x / jnp.hypot(alpha, sigma) + jnp.arange(4.0))
        return Gaussian((parts[..., None] * each).sum(1) + size[:, None] * bend)

    return denoise


def grid(schedule: Schedule, steps: int, first: float, level: float = LEVEL, **how) -> Callable:
    """`(denoise, x, keys) -> (log_prob, error, noise, evaluations)`."""
    times = likelihood.flow_times(schedule, steps, level, first)
    return on_grid(schedule, times, likelihood.RK4, **how)


def on_grid(schedule: Schedule, times, solver, **how) -> Callable:
    def solve(denoise, x, keys):
        found = likelihood.ode_likelihood(denoise, schedule, times, x, keys, solver=solver, **how)
        return found.log_prob, found.error, 0.0, likelihood.evaluations(times, solver)

    return solve


def within(schedule: Schedule, tolerance: float, first: float, **how) -> Callable:
    """`grid` to a tolerance."""
    times = likelihood.flow_times(schedule, 1, LEVEL, first)

    def solve(denoise, x, keys):
        found = likelihood.adaptive_likelihood(denoise, schedule, times, x, keys, tolerance, **how)
        return found.log_prob, found.error, found.noise, found.evaluations.mean()

    return solve


def start(schedule: Schedule) -> float:
    return 1.0 if schedule.alpha(1.0) > 1e-6 else 0.999


def solvers(schedule: Schedule, **how) -> dict[str, Callable]:
    """Of a schedule that is known at every t."""
    first = start(schedule)
    chains = {"RK4, 50 steps": grid(schedule, 50, first, **how)}
    for tolerance in (1e-3, 1e-4, 1e-5):
        chains[f"to {tolerance:g}"] = within(schedule, tolerance, first, **how)
    return chains


def table_solvers(schedule: Schedule, **how) -> dict[str, Callable]:
    chains = {}
    for steps in (50, 200, 999):
        times = likelihood.table_times(schedule, 1000, steps)
        chains[f"Heun, {steps} steps"] = on_grid(schedule, times, likelihood.HEUN, **how)
    return chains


def converged(schedule: Schedule, first: float, last: float, x, count: int, **kinds) -> np.ndarray:
    """log p [kinds x wrong x count] in 800 steps between the noise levels of a schedule at two times.

    On a straight line, which has all levels and is known everywhere: in z, a flow and its prior depend on them alone.
    """
    noisy, clean = (float(schedule.sigma(t) / schedule.alpha(t)) for t in (first, last))
    straight = schedules.flow()
    chain = grid(straight, 800, noisy / (1 + noisy), clean, trace=likelihood.exact_trace())
    return solved(chain, networks(straight, count, **kinds), x)[0]


def solved(chain: Callable, denoise: Callable, x, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed), len(x))
    return jax.tree.map(np.asarray, jax.jit(lambda x: chain(denoise, x, keys))(jnp.asarray(x)))


def measure(name: str, schedule: Schedule, chains: dict[str, Callable], ends, count: int, **kinds):
    """A `Row` for each of `chains`, which lead between the times `ends`."""
    shape = len(kinds.get("kinds", KINDS)), len(kinds.get("wrong", WRONG)), count
    x = np.tile(points(count), (shape[0] * shape[1], 1))
    truth = converged(schedule, *ends, x, count, **kinds)
    for solver, chain in chains.items():
        log_prob, error, noise, evaluations = solved(chain, networks(schedule, count, **kinds), x)
        found, said = (a.reshape(shape).mean(-1) / x.shape[1] for a in (np.abs(log_prob - truth), error + noise))
        yield Row(name, solver, found, said, float(evaluations))


def line(row: Row) -> str:
    """A line of the table: for each degree of wrong the kind with the largest found / said."""
    worst = (row.found / row.said).argmax(0)
    entries = [f"{row.found[k, i]:.0e} / {row.said[k, i]:.0e}" for i, k in enumerate(worst)]
    ratio = (row.found / row.said).max()
    return f"| {row.schedule} | {row.solver} | {row.evaluations:.0f} | {' | '.join(entries)} | {ratio:.2g} |"


def main(arguments: list[str]):
    """The command `python -m experiments.likelihood_errors`."""
    cli.parser("experiments.likelihood_errors", __doc__).parse_args(arguments)
    heads = [f"{100 * wrong:g} % wrong" for wrong in WRONG]
    head = f"| schedule | solver | evaluations | {' | '.join(heads)} | largest found / said |"
    for title, count, how in (
        ("The exact trace", 16, {"trace": likelihood.exact_trace()}),
        ("Hutchinson's trace, two probes", 16, {"trace": likelihood.hutchinson(2)}),
    ):
        print(f"\n## {title}\n\n{head}\n|{'---|' * (len(heads) + 4)}")
        for name, schedule in SCHEDULES.items():
            ends = likelihood.flow_times(schedule, 1, LEVEL, start(schedule))
            for row in measure(name, schedule, solvers(schedule, **how), ends, count):
                print(line(row), flush=True)
        for name, schedule in TABLES.items():
            ends = likelihood.table_times(schedule, 1000, 1)
            for row in measure(name, schedule, table_solvers(schedule, **how), ends, count):
                print(line(row), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    cli.run(main)
