"""What a resume, and a look at the parameters, make of damaged work directories.

  python -m experiments.strangers.damages --number 400

A small run (`small`) is saved with checkpoints of the steps 10 to 40, damaged in one way or two, and opened: by what
draws samples, and by the command that goes on with training. Each damage is drawn from a seed: a bit or a byte that
flips, a file that is cut off, emptied, removed, exchanged, or no file any more; a folder that is removed, renamed,
exchanged, linked, or came from another run or another step.

A state is parameters, averages, the optimiser's state, the memory, the step and the data's position. Outcomes:

  harmless                 the newest state, as it was saved
  said                     an earlier state, as it was saved, and a line that names the loss
  refused                  one line, and nothing is overwritten
  silently another state   a state that was never saved, or not at this step
  silent fallback          an earlier state without a word
  silent restart           step 0 without a word
  traceback                a Python traceback, of whichever thread

The first three are right.

What to expect, 400 damages from seed 0 (two minutes on two CPU cores):

                             train  sample
  harmless                     196     243
  said                         186     140
  refused                       18      17
  silently another state         0       0
  silent fallback                0       0
  silent restart                 0       0
  traceback                      0       0
"""

import contextlib
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.app import cli, resolve
from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.loop import fit
from diffusion_jax.training.state import init_state
from experiments.strangers import small

STEPS = (10, 20, 30, 40)
RIGHT = ("harmless", "said", "refused")
WRONG = ("silently another state", "silent fallback", "silent restart", "traceback")


def main(arguments: list[str]):
    """The command `python -m experiments.strangers.damages`."""
    parser = cli.parser("experiments.strangers.damages", __doc__)
    parser.add_argument("--number", type=int, default=400, metavar="N", help="damages (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the damages (%(default)s)")
    parser.add_argument("--only", type=int, metavar="I", help="this one alone, with all that it says")
    options = parser.parse_args(arguments)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for i, outcome in enumerate(campaign(Path(folder), options.number, options.seed, options.only)):
            found.append(outcome)
            for reader in ("train", "sample"):
                if outcome[reader] in WRONG or options.only is not None:
                    print(f"{i}: {outcome['damage']}: {reader}: {outcome[reader]}", flush=True)
                    print(outcome["told"][reader], flush=True)
    print(table(found))


def table(found: list[dict]) -> str:
    """How often each outcome came, for a person."""
    rows = [f"  {'':<24}{'train':>8}{'sample':>8}"]
    for name in (*RIGHT, *WRONG):
        counts = [sum(outcome[reader] == name for outcome in found) for reader in ("train", "sample")]
        rows.append(f"  {name:<24}{counts[0]:>8}{counts[1]:>8}")
    return "\n".join(rows)


def campaign(folder: Path, number: int, seed: int = 0, only: int | None = None) -> Iterator[dict]:
    """Damage copies of a run within `folder`, one after the other.

    Yields:
      {"damage": what was done, "train" and "sample": outcomes, "told": what each of them said}.
    """
    run, other = Run(folder / "run", 0), Run(folder / "other", 1)
    for i in range(number) if only is None else [only]:
        rng = random.Random(f"{seed} {i}")
        copy = folder / "copy"
        shutil.copytree(run.folder, copy, symlinks=True)
        damage = "; ".join(rng.choice(DAMAGES)(copy, other.folder, rng) for _ in range(rng.choice((1, 1, 1, 2))))
        sample, told = run.sampled(copy)
        train, told_train = run.trained(copy)
        yield {"damage": damage, "train": train, "sample": sample, "told": {"train": told_train, "sample": told}}
        for path in (copy, folder / "damaged"):
            shutil.rmtree(path, ignore_errors=True)


class Run:
    """An undamaged run, and what opening a damaged copy of it comes to."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.config = folder, small.get_config()
        self.config.seed = seed
        self.experiment = small.build(self.config)
        with _told():
            fit(self.experiment, self.config, folder, devices=jax.devices()[:1])
        self.template = jax.eval_shape(self._initial, jax.random.key(0))
        self.saved = {}
        for step in STEPS:
            with Checkpoints(folder / "checkpoints") as checkpoints:
                whole = checkpoints._read(step, _items(self.template))
                self.saved[step] = whole[0], whole[1]["position"]

    def _initial(self, key):
        of = self.experiment
        return init_state(
            of.task.init, of.optimization.optimizer.transformation, of.task.times, key, of.optimization.averages
        )

    def trained(self, copy: Path) -> tuple[str, str]:
        """What going on with training comes to: (outcome, what it said)."""

        def read():
            with Checkpoints(copy / "checkpoints") as checkpoints:
                found = checkpoints.restore_latest(self.template)
            if found is None:
                fit(self.experiment, self.config, copy, devices=jax.devices()[:1])  # refuses, it is to be hoped
                return 0, None
            return int(found[0].step), (_items(found[0]), found[1])

        return self._outcome(read, lambda step: self.saved[step])

    def sampled(self, copy: Path) -> tuple[str, str]:
        """What drawing with the averaged parameters comes to."""
        return self._outcome(
            lambda: resolve.parameters(copy, self.experiment), lambda step: self.saved[step][0]["ema"]
        )

    def _outcome(self, read: Callable, saved: Callable) -> tuple[str, str]:
        refused = broken = False
        with _told() as told:
            try:
                step, found = read()
            except (InputError, RunError) as error:
                refused = len(str(error).splitlines()) == 1
                print(error, file=sys.stderr)
            except Exception:
                broken = True
                traceback.print_exc()
        text = "".join(told)
        if broken or "Traceback" in text:
            return "traceback", text
        if refused:
            return "refused", text
        if step not in self.saved or not _same(found, saved(step)):
            return ("silent restart" if step == 0 else "silently another state"), text
        if step == max(STEPS):
            return "harmless", text
        said = ("damaged" in text or "is gone" in text) and f"step {step}" in text
        return ("said" if said else "silent fallback"), text


def _items(state) -> dict:
    averages = {f"average_{name}": tree for name, tree in state.averages.items()}
    progress = {"optimizer": state.optimizer, "memory": state.memory}
    return {"params": state.params, "ema": state.ema, "progress": progress} | averages


def _same(one, other) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype for x, y in pairs)


@contextlib.contextmanager
def _told():
    """A list, after the `with` with all that the process said on standard error, whichever thread or library."""
    told, before, stream = [], os.dup(2), sys.stderr
    with tempfile.TemporaryFile("w+", buffering=1, errors="replace") as file:
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        try:
            yield told
        finally:
            os.dup2(before, 2)
            os.close(before)
            sys.stderr = stream
            file.seek(0)
            told.append(file.read())


# ---- Damages: `(copy, another run, rng) -> what was done`.


def _file(copy: Path, rng) -> Path:
    """A file that is not empty; most often one of the newest checkpoint."""
    where = rng.choice([copy / "checkpoints" / "40"] * 4 + [copy / "checkpoints", copy])
    files = sorted(p for p in where.rglob("*") if p.is_file() and p.stat().st_size and p.name != "config.json")
    meta = [p for p in files if p.parent.name == "meta" or p.suffix in (".json", ".jsonl")]
    return rng.choice(meta if meta and rng.random() < 0.3 else files) if files else copy / ".lock0"


def _altered(name: str, alter: Callable) -> Callable:
    def damage(copy, other, rng):
        path = _file(copy, rng)
        content = path.read_bytes()
        path.write_bytes(alter(content, rng))
        return f"{name} {path.relative_to(copy)}"

    return damage


def _flip(bits: int):
    def alter(content, rng):
        place = rng.randrange(max(1, len(content)))
        mask = 1 << rng.randrange(8) if bits == 1 else 255
        return content[:place] + bytes(byte ^ mask for byte in content[place : place + 1]) + content[place + 1 :]

    return alter


def _instead(name: str, make: Callable) -> Callable:
    def damage(copy, other, rng):
        path = _file(copy, rng)
        path.unlink()
        make(path)
        return f"{name} in place of {path.relative_to(copy)}"

    return damage


def _folders(copy: Path) -> list[Path]:
    found = [path for path in (copy / "checkpoints").glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def _newest(copy: Path) -> Path:
    return [copy / "checkpoints", *_folders(copy)][-1]


def _renamed(copy, other, rng):
    path = _newest(copy)
    names = ("45", "35", "0040", "4000000000", "99999999999999999999", "40.old", "4_0", "-40", "٤٠")
    name = rng.choice(names)
    path.rename(path.with_name(name))
    return f"rename {path.name} to {name}"


def _exchanged(copy, other, rng):
    one, two = rng.sample(_folders(copy), 2) if len(_folders(copy)) > 1 else [copy, copy]
    if one != two:
        _exchange(one, two)
    return f"exchange {one.name} and {two.name}"


def _exchange(one: Path, two: Path):
    between = one.with_name("between")
    one.rename(between), two.rename(one), between.rename(two)


def _part(copy, other, rng):
    """An item of one checkpoint in place of another's, of an older one, or of another run's."""
    newest, item = _newest(copy), rng.choice(("params", "ema", "progress", "meta", "average_0.5"))
    places = [newest / rng.choice(("params", "ema", "average_0.5")), other / "checkpoints" / "40" / item]
    source = rng.choice([*places, *(path / item for path in _folders(copy)[:-1])])
    if not (newest / item).is_dir() or not source.is_dir() or source == newest / item:
        return f"nothing, for there is no {item}"
    shutil.copytree(source, copy / "between")
    shutil.rmtree(newest / item)
    (copy / "between").rename(newest / item)
    return f"{newest.name}/{item} is that of {source}"


def _removed(copy, other, rng):
    paths = [[_newest(copy)], _folders(copy), [copy / "checkpoints"], _folders(copy)[1:], [copy / "checkpoints.json"]]
    some = rng.choice([*paths, [p for p in _newest(copy).glob("*") if p.is_dir()][:1]])
    for path in some:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return f"remove {', '.join(str(path.relative_to(copy)) for path in some)}"


def _added(copy, other, rng):
    folder, newest = copy / "checkpoints", _newest(copy)
    folder.mkdir(exist_ok=True)
    name = rng.choice(("50", "35", "41", "7", "2147483647", "2147483648", "40.orbax-checkpoint-tmp"))
    source = rng.choice((newest, other / "checkpoints" / "40"))
    if (folder / name).exists():
        return "nothing"
    how = rng.choice(("copy", "link", "file", "empty folder", "broken link"))
    if how == "copy":
        shutil.copytree(source, folder / name)
    elif how == "file":
        (folder / name).write_bytes(b"x")
    elif how == "empty folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to(source if how == "link" else copy / "nowhere")
    return f"add {name}, a {how} of {source.parent.parent.name}/{source.name}"


def _foreign(copy, other, rng):
    path = _newest(copy)
    if path.name == "checkpoints":
        return "nothing"
    shutil.rmtree(path)
    shutil.copytree(other / "checkpoints" / "40", path)
    return f"{path.name} is of another run"


def _linked(copy, other, rng):
    path, moved = _newest(copy), copy / "elsewhere"
    if path.name == "checkpoints" or moved.exists():
        return "nothing"
    path.rename(moved)
    path.symlink_to(moved)
    return f"{path.name} is a link"


def _files_exchanged(copy, other, rng):
    one, two = _file(copy, rng), _file(copy, rng)
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(b), two.write_bytes(a)
    return f"exchange {one.relative_to(copy)} and {two.relative_to(copy)}"


DAMAGES = [
    *[_altered("flip a bit of", _flip(1))] * 8,
    *[_altered("flip a byte of", _flip(8))] * 2,
    *[_altered("cut off", lambda content, rng: content[: rng.randrange(len(content) or 1)])] * 2,
    _altered("empty", lambda content, rng: b""),
    _altered("lengthen", lambda content, rng: content + rng.randbytes(7)),
    _altered("zero", lambda content, rng: bytes(len(content))),
    _altered("replace", lambda content, rng: rng.randbytes(len(content))),
    _instead("nothing", lambda path: None),
    _instead("a folder", Path.mkdir),
    _instead("a pipe", os.mkfifo),
    _instead("a broken link", lambda path: path.symlink_to(path.with_name("nowhere"))),
    *[_renamed] * 2,
    *[_exchanged] * 2,
    *[_part] * 3,
    *[_removed] * 3,
    *[_added] * 3,
    _foreign,
    _linked,
    _files_exchanged,
]


if __name__ == "__main__":
    cli.run(main)
