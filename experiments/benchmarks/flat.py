"""Numbers that must stay flat: speed by the size of the data, what a step costs the host by the number of devices.

  python -m experiments.benchmarks.flat
  python -m experiments.benchmarks.flat --parts dispatch --repeats 100
  python -m experiments.benchmarks.samplers --parts compile memory       (the third part in full)

  input     examples a second of the pipeline alone, of training on one and the same batch, and of both together as
            `fit` runs them, for data sets of a thousand, a million and a billion digits, and for 50,000 images of the
            size of CIFAR-10. The examples are in memory and repeat: what could grow is the order and the pipeline.
            "waiting" is the share of time that the host spends in asking for the next batch; input is never on the
            critical path where that is about nothing, and both together are as fast as training alone. (On a CPU the
            threads that read take their time from the network.)
  dispatch  after how long the Python call of training returns, what of that its thread itself has worked (the rest is
            waiting, for a core for instance), and when all is done, for each step, with 1, 2, 4 and 8 simulated
            devices (a process each), by `pmap` and by `train.fsdp`; one step a call, and ten
            (`train.steps_per_call`). One digit a device and a network of 8 channels, so that the devices have next
            to nothing to do. "least" adds 1 to the same arrays under `pmap`: JAX looks after every array on every
            device of the process, and that grows. What a call takes beyond it is the price of this library and of
            devices that share the cores of the host, as simulated ones do. The host keeps ahead while the call
            returns sooner than its steps are done.
  chains    compile time and memory by the number of steps, 10 to 1000, of two samplers: `samplers` measures it.

Medians (least to most). A machine that does other work makes all of it doubtful.
"""

import argparse
import time
from pathlib import Path

from tqdm import tqdm

from experiments.benchmarks import samplers, shared
from experiments.benchmarks.shared import spread

# JAX is imported by the sides alone: each number of devices is its own environment.

PARTS = ("input", "dispatch", "chains")
INPUT = {  # size: batch, steps a repetition, examples in the data
    "digits": (32, 40, (10**3, 10**6, 10**9)),
    "cifar": (8, 3, (50_000,)),
}
DEVICES = (1, 2, 4, 8)
CALLS = (1, 10)  # steps a call
SIDE = "experiments.benchmarks.flat_ours"


def measure_input(sample_condition, examples, repeats: int) -> list[dict]:
    """Per number of `examples` {"examples", "loader", "alone", "fed", "waiting": lists}, repetitions taking turns.

    `sample_condition` is a `shared.Side` of `flat_ours.Input`, or a function that answers like it.
    """
    results = [{"examples": n, "loader": [], "alone": [], "fed": [], "waiting": []} for n in examples]
    for _ in range(repeats):
        for result in results:
            result["loader"].append(sample_condition("loader", result["examples"]))
            result["alone"].append(sample_condition("alone"))
            speed, waiting = sample_condition("fed", result["examples"])
            result["fed"].append(speed)
            result["waiting"].append(waiting)
    return results


def input_table(inputs: dict[str, list[dict]]) -> str:
    """`inputs` are `measure_input`'s, by size."""
    rows = [["data", "examples", "loader, 1/s", "training, 1/s", "both, 1/s", "both / training", "waiting, %"]]
    for size, results in inputs.items():
        for result in results:
            speeds = [spread(result[name]) for name in ("loader", "alone", "fed")]
            waiting = spread([100 * share for share in result["waiting"]])
            share = shared.ratio(result["fed"], result["alone"])
            rows.append([size, f"{result['examples']:,}", *speeds, share, waiting])
    return "INPUT: examples a second\n" + shared.table(rows)


def dispatch_table(dispatches: dict[int, dict[str, dict]], arrays: int) -> str:
    """`dispatches`: number of devices -> what is called -> seconds as of `flat_ours.Dispatch`."""
    rows = [["called", "devices", "returns, ms", "thread, ms", "done, ms"]]
    for chain in next(iter(dispatches.values())):
        for devices, ways in dispatches.items():
            rows.append(
                [chain, str(devices), *(spread([1e3 * s for s in seconds]) for seconds in ways[chain].values())]
            )
    return f"DISPATCH: milliseconds of the host for one step on a state of {arrays} arrays\n{shared.table(rows)}"


def main(arguments: list[str] | None = None):
    """The command `python -m experiments.benchmarks.flat`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    shared.check_json(parser, options.json)
    started, record = time.perf_counter(), {}
    print(f"{shared.processor()}, {shared.cores()} cores", flush=True)

    def side(part, **more):
        return shared.Side(SIDE, argparse.Namespace(part=part, **more))

    if "input" in options.parts:
        record["input"] = {}
        for size, (batch, steps, examples) in tqdm(INPUT.items(), unit="size", dynamic_ncols=True):
            sample_condition = side("input", size=size, batch=batch, steps=steps)
            record["input"][size] = measure_input(sample_condition, examples, options.repeats)
        print(f"\n{input_table(record['input'])}", flush=True)
    if "dispatch" in options.parts:
        record["dispatch"] = {}
        for devices in tqdm(DEVICES, unit="process", dynamic_ncols=True):
            sample_condition = side("dispatch", devices=devices, repeats=10 * options.repeats)
            ways = {"least": sample_condition("least")}
            for most in CALLS:
                for name, fsdp in (("pmap", False), ("fsdp", True)):
                    ways[f"{name}, {most} a call"] = sample_condition("step", fsdp, most)
            record["dispatch"][devices] = ways
        print(f"\n{dispatch_table(record['dispatch'], sample_condition('arrays'))}", flush=True)
    if options.json:
        shared.write_json(options.json, options, **record)
    print(f"{time.perf_counter() - started:.0f} s", flush=True)
    if "chains" in options.parts:
        print()
        chains = ["--samplers", "ancestral", "ddim", "--repetitions", "1"]
        samplers.main(["--parts", "compile", "memory", *chains])


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.flat",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="NAME", help=f"of {', '.join(PARTS)} (all)")
    add("--repeats", type=shared.count, default=5, metavar="N", help="of input, a tenth of dispatch's (%(default)s)")
    add("--json", type=Path, metavar="PATH", help="also write the figures of input and dispatch there")
    return parser


if __name__ == "__main__":
    shared.run(main)
