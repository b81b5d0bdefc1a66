"""What is left of runs that are killed again and again, at any moment, by any signal.

  python -m experiments.strangers.kills --number 100

A small run (`small`), 100 steps with a checkpoint every five and a preview and a snapshot every ten, is started,
killed after a random time, and started again until it comes to its end; then it is compared with one that nothing
disturbed. Signals are SIGKILL, SIGTERM, SIGHUP, Ctrl-C and two of them.

  steps lost          a start that goes on from an earlier step than the newest complete checkpoint
  not saved           the process did not end with 128 + signal and one line, though it could (not SIGKILL)
  traceback           a Python traceback
  arrays differ       the last checkpoint's arrays or data position are not those of the undisturbed run
  previews differ     a preview is missing, or has other bytes
  snapshots differ    the same of snapshots of averages
  log differs         a step's last line in metrics.jsonl has another loss, or is missing
  stray files         files that the undisturbed run has not

Processes are forked from one that has imported all: so most kills come while something happens, and little time is
spent on starting.

What to expect of 100 kills from seed 0 (five minutes on two busy CPU cores):

  kills                 100
  runs                   51
  Ctrl-C                 13
  Ctrl-C twice           22
  SIGHUP                 19
  SIGTERM                19
  SIGKILL                27
  steps lost              0
  not saved               0
  traceback               0
  arrays differ           0
  previews differ         0
  snapshots differ        0
  log differs             0
  stray files             0
"""

import collections
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from diffusion_jax import train
from diffusion_jax.app import cli
from diffusion_jax.core import ending
from diffusion_jax.training import metrics
from experiments.strangers import small

TOLD = [
    "--config.train.steps=100",
    *(f"--config.log.{x}" for x in ("every=1", "checkpoint_every=5", "sample_every=10", "keep=3")),
]
SIGNALS = {
    "SIGKILL": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "SIGHUP": [signal.SIGHUP],
    "Ctrl-C": [signal.SIGINT],
    "Ctrl-C twice": [signal.SIGINT, signal.SIGINT],
}
FAULTS = (
    *("steps lost", "not saved", "traceback", "arrays differ"),
    *("previews differ", "snapshots differ", "log differs", "stray files"),
)


def main(arguments: list[str]):
    """The command `python -m experiments.strangers.kills`."""
    parser = cli.parser("experiments.strangers.kills", __doc__)
    parser.add_argument("--number", type=int, default=100, metavar="N", help="kills (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of signals and moments (%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print(campaign(Path(folder), options.number, options.seed))


def campaign(folder: Path, number: int, seed: int = 0) -> str:
    """Kill runs within `folder` `number` times; what was found, for a person."""
    rng, faults, by = random.Random(seed), collections.Counter(), collections.Counter()
    started = time.monotonic()
    assert Process(folder / "whole").wait() == 0
    whole, usual = Left(folder / "whole"), time.monotonic() - started
    kills = runs = 0
    while kills < number:
        workdir, runs = folder / f"run{runs}", runs + 1
        while True:
            before, process = _newest(workdir), Process(workdir)
            name = rng.choice([*SIGNALS])
            if kills < number and process.ends_within(rng.uniform(0, usual)) is None:
                kills, by[name] = kills + 1, by[name] + 1
                for number_sent in SIGNALS[name]:
                    process.send(number_sent)
                found = process.faults(before, SIGNALS[name][0])
            else:
                found = process.faults(before, None)
            for fault in found:
                faults[fault] += 1
                print(f"{workdir.name}, {name}, status {process.status}: {fault}\n{process.told()}", flush=True)
            if process.status == 0:
                break
        for fault in Left(workdir).differences(whole):
            faults[fault.split(":")[0]] += 1
            print(f"{workdir.name}: {fault}", flush=True)
    rows = [f"  {name:<20}{count:>5}" for name, count in [("kills", kills), ("runs", runs), *by.items()]]
    return "\n".join([*rows, *(f"  {name:<20}{faults[name]:>5}" for name in FAULTS)])


class Process:
    """The command that trains in `workdir`, in a process of its own."""

    def __init__(self, workdir: Path):
        self.status = None
        self._said = workdir.with_suffix(".said")
        self._pid = os.fork()
        if self._pid == 0:
            said = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 2)
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
            ending.at_once()
            try:
                cli.run(train.main, ["--config", small.__file__, "--workdir", str(workdir), *TOLD])
            except SystemExit as end:
                os._exit(end.code or 0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)

    def ends_within(self, seconds: float) -> int | None:
        """Its status if it ends within that time."""
        last = time.monotonic() + seconds
        while self._poll(os.WNOHANG) is None and time.monotonic() < last:
            time.sleep(0.002)
        return self.status

    def wait(self) -> int:
        """Its status, at the end."""
        return self._poll(0)

    def send(self, number: int):
        """Send it a signal, if it is there still."""
        if self._poll(os.WNOHANG) is None:
            os.kill(self._pid, number)

    def told(self) -> str:
        """What it said on standard error."""
        return self._said.read_text(errors="replace")

    def faults(self, before: int, sent: int | None) -> list[str]:
        """What it did wrong: started when `before` was the newest checkpoint, and sent a signal or none."""
        found, status, said = [], self.wait(), self.told()
        if "Traceback" in said:
            found.append("traceback")
        if "going on from step" in said and f"going on from step {before} " not in said:
            found.append("steps lost")
        if "from the start to step" in said and before:
            found.append("steps lost")
        allowed = (0,) if sent is None else (0, 128 + sent, -sent if sent == signal.SIGKILL else 0)
        if status not in allowed or (status and sent != signal.SIGKILL and "stopped by signal" not in said):
            found.append("not saved")
        return found

    def _poll(self, how: int) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self._pid, how)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status


def _newest(workdir: Path) -> int:
    folder = workdir / "checkpoints"
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) if folder.is_dir() else 0


class Left:
    """What a run has left in its work directory, at its end."""

    def __init__(self, workdir: Path):
        newest = workdir / "checkpoints" / str(_newest(workdir))
        manifest = json.loads((newest / "meta" / "metadata").read_text())
        self.arrays = {name: manifest[name] for name in ("step", "position", "crc32")}  # read and checked by the run
        self.previews = {p.name: p.read_bytes() for p in sorted((workdir / "samples").iterdir())}
        self.snapshots = {p.name: p.read_bytes() for p in sorted((workdir / "averages").iterdir())}
        self.losses = {line["step"]: line["loss"] for line in metrics.read(workdir / metrics.FILE)}
        files = (p.relative_to(workdir) for p in workdir.rglob("*"))
        self.files = {str(p) for p in files if p.parts[0] not in ("checkpoints", "tensorboard")}
        # Which checkpoints are kept depends on where a run was stopped.
        self.files |= {p.name for p in (workdir / "checkpoints").iterdir() if not p.name.isdigit()}

    def differences(self, whole: "Left") -> list[str]:
        """How it differs from what the undisturbed run left: faults, with what they are of."""
        names = {"arrays": "arrays", "previews": "previews", "snapshots": "snapshots", "losses": "log"}
        found = []
        for name, word in names.items():
            ours, theirs = getattr(self, name), getattr(whole, name)
            some = [key for key in [*theirs, *ours] if ours.get(key) != theirs.get(key)]
            if some:
                found.append(f"{word} differ{'s' * (word == 'log')}: {some[:5]}")
        stray = self.files - whole.files
        return found + ([f"stray files: {sorted(stray)[:5]}"] if stray else [])


if __name__ == "__main__":
    cli.run(main)
