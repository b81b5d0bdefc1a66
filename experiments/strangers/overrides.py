"""What `train` does with values that make no sense: one or two overrides of a config, mutated at random.

  python -m experiments.strangers.overrides --number 500

Each command is run whole, two steps of a small model, in a process that runs many of them. It is counted as

  refused     one line on standard error, exit status 2, and no work directory
  harmless    trained to the end, or until it was stopped after --seconds: the values are finite, of their defaults'
              types and signs, and there is a checkpoint
  stopped     trained, and stopped in one line with exit status 1, as a loss that is not finite stops a run
  late        refused in one line, but the work directory was made before
  nonsense    trained to the end with other values than that, or without a checkpoint
  traceback   any other exception, or more than one line
  hang        nothing of it within --seconds

Only the first three are good. Those of the others are printed, one a line.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import io
import json
import math
import multiprocessing
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from diffusion_jax import config as configs
from diffusion_jax.config import values

ROOT = Path(__file__).parent.parent.parent
GOOD = ("refused", "harmless", "stopped")
SMALL_IMAGES = ("model.channels=8", "model.groups=4", "model.multipliers=(1,2)", "model.attention_levels=()")
SMALL = {  # what trains in a moment, of the configs that need no download
    "swiss_roll": ("model.features=8", "model.layers=1"),
    "digits": SMALL_IMAGES,
    "flow": SMALL_IMAGES,
    "text": ("model.features=8", "model.layers=1", "model.heads=2", "data.length=8"),
}
SHORT = (
    *("train.batch_size=8", "train.steps=2", "train.steps_per_call=1", "train.warmup_steps=0"),
    *("log.every=1", "log.sample_every=0", "data.threads=1"),
)


def mutated(rng: np.random.Generator, default) -> str:
    """A text in place of `default` on a command line: often what no sense can be made of."""
    nothing = ["", "None", "@x", "many", "[]", "()", "(", "((1,),)", "None,", "{}", "true", "maybe", "a/b", "é"]
    odd = ["nan", "inf", "-inf", "1e308", "-1e308", "1e-300", "9" * 30, "x" * 5000, "0x10", "1_0", "-0.0"]
    numbers = ["0", "-1", "1", "2", "3", "7", "0.5", "-0.5", "1000000", "2147483648"]
    lists = ["(1,)", "1,2", "(1,1,1,1,1,1,1)", "(0,)", "(-1,)", "(0.5,)", "(nan,)", "(1,'a')", "1,,2", "(1e9,)"]
    scaled = [str(default * factor) for factor in (-1, 0.1, 10, 1e12)] if isinstance(default, int | float) else []
    kinds = [nothing, odd, numbers, lists, scaled or numbers]
    return str(rng.choice(kinds[rng.integers(len(kinds))]))


def drawn(rng: np.random.Generator, number: int) -> list[tuple[str, dict[str, str]]]:
    """So many (config, key -> text)."""
    known = {name: list(values.walk(configs.load(ROOT / "configs" / f"{name}.py").get_config())) for name in SMALL}
    found = []
    for _ in range(number):
        name = str(rng.choice(list(SMALL)))
        chosen = rng.choice(len(known[name]), 1 + rng.integers(2), replace=False)
        found.append((name, {known[name][i][0]: mutated(rng, known[name][i][1]) for i in chosen}))
    return found


def outcome(case: tuple[str, dict[str, str]], seconds: int) -> tuple[str, str]:
    """What becomes of one command: (its class, what was said)."""
    from diffusion_jax import train
    from diffusion_jax.app import cli

    def late(*_):
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            raise TimeoutError
        signal.raise_signal(signal.SIGTERM)  # it trains, and stops when it is asked to

    name, changes = case
    said, status = io.StringIO(), 0
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folder, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        workdir = Path(folder.name) / "run"
        given = [f"--config.{value}" for value in (*SMALL[name], *SHORT)]
        given += [f"--config.{key}={text}" for key, text in changes.items()]
        signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)
        try:
            cli.run(train.main, ["--config", str(ROOT / "configs" / f"{name}.py"), "--workdir", str(workdir), *given])
        except SystemExit as end:
            status = end.code
        except TimeoutError:
            return "hang", ""
        except BaseException as error:
            return "traceback", f"{type(error).__name__}: {str(error)[:200]!r}"
        finally:
            signal.alarm(0)
        last = (said.getvalue().strip().splitlines() or [""])[-1]
        if status == 2:
            whole = said.getvalue().strip()
            clear = whole.startswith("error: ") and len(whole.splitlines()) == 1
            return ("late" if workdir.exists() else "refused" if clear else "traceback"), last
        if status == 1:
            return "stopped", last
        return ("harmless" if _saved(workdir) and _sensible(workdir, name, changes) else "nonsense"), last


def _saved(workdir: Path) -> bool:
    return any(path.name.isdigit() for path in (workdir / "checkpoints").iterdir())


def _sensible(workdir: Path, name: str, keys) -> bool:
    defaults = configs.flatten(configs.to_json(configs.load(ROOT / "configs" / f"{name}.py").get_config()))
    stored = configs.flatten(json.loads((workdir / "config.json").read_text())["config"])
    return all(_alike(stored[key], defaults[key]) for key in keys)


def _alike(value, default) -> bool:
    if isinstance(default, list):
        return isinstance(value, list) and all(_alike(entry, default[0] if default else 0.5) for entry in value)
    if isinstance(default, bool | str):
        return type(value) is type(default)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and value >= 0 and (isinstance(default, float) or isinstance(value, int))


def main():
    """Run the campaign that `sys.argv` asks for, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=500, metavar="N", help="commands (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (%(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="that a command may take (%(default)s)")
    options = parser.parse_args()
    cases = drawn(np.random.default_rng(options.seed), options.number)
    pool = concurrent.futures.ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"))
    with pool:
        found = list(pool.map(outcome, cases, [options.seconds] * len(cases)))
    for (name, changes), (kind, said) in zip(cases, found, strict=True):
        if kind not in GOOD:
            print(f"{kind}: {name} {str(changes)[:120]}: {said}")
    counts = collections.Counter(kind for kind, _ in found)
    table = ", ".join(f"{number} {kind}" for kind, number in counts.most_common())
    print(f"{options.number} commands, seed {options.seed}: {table}")
    sys.exit(any(kind not in GOOD for kind in counts))


if __name__ == "__main__":
    main()
