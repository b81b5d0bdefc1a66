"""Does a training process grow? Its memory, by the thousand steps, with all that a run keeps.

  python -m experiments.strangers.growth --steps 20000

Prints a row a thousand steps: resident memory in MiB, Python objects that the collector knows, arrays that are alive.
The first rows hold what is compiled and the first checkpoint and preview.
"""

import argparse
import gc
import tempfile
from pathlib import Path

import jax

from diffusion_jax.training.hooks import Hook
from diffusion_jax.training.loop import fit
from experiments.strangers import small

PAGE = 4096


def resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def main():
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    values = small.get_config()
    values.train.steps = parser.parse_args().steps
    values.log.update(every=100, checkpoint_every=2000, sample_every=2000, snapshot_every=0, keep=2)

    def look(step, state):
        gc.collect()
        print(f"| {step:,} | {resident():.1f} | {len(gc.get_objects()):,} | {len(jax.live_arrays())} |", flush=True)

    print("| steps | MiB | objects | arrays |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        fit(small.build(values), values, Path(folder), devices=jax.devices()[:1], hooks=[Hook(1000, look)])


if __name__ == "__main__":
    main()
