"""Every sampler: what compiling costs, what memory it takes, and its speed beside diffusers' schedulers.

  python -m experiments.benchmarks.samplers
  python -m experiments.benchmarks.samplers --parts speed --samplers heun dpmpp_2m --repetitions 10
  python -m experiments.benchmarks.samplers --batch 256 --steps 200 --json samplers.json

One U-Net of random weights, that of configs/digits.py unless --config names another, under each sampler on a
schedule that it is used with. Three tables:

  compile  seconds of tracing, lowering and compiling, with no cache, and the number of HLO instructions that come
           out, for chains of 10, 100 and 1000 steps. A chain is one `lax.scan`: neither may grow with its length. The
           control, a chain unrolled in Python, does.
  memory   what the compiled program allocates beside its arguments (temporaries and results, by XLA's own
           account), for `solve`, and for `film` that keeps every step: the first is flat, the second, the
           control, grows by one batch a step. The coefficients of a chain, a few numbers a step, lie in the program.
  speed    network evaluations and steps a second. Chains of --steps steps, ours and diffusers' in turn; the ratio is
           of evaluations, for not all make the same number. "network" is the network alone, without a sampler,
           again and again; "of network" is the share of its speed that a sampler keeps: how little it adds itself.

diffusers' UNet2DModel has as many parameters (both numbers are printed and must agree), and its schedulers run in
the loops of its pipelines, eagerly, channels-last. ancestral is DDPM's sampler, edm churn is Algorithm 2 of Karras et
al. 2022, euler_maruyama and predictor_corrector run on the VE SDE; annealed_langevin has no counterpart. Without
torch and diffusers (the extra "parity") ours is timed alone.

What to expect, on 2 cores of an Intel Xeon and an otherwise idle machine (jax 0.10.2, torch 2.13.0, diffusers
0.42.1; --repetitions 3):
  compile  1.4 to 2.1 s a sampler, the same at every length to 8 %, and 3,388 to 7,387 instructions, the same
           to the last; heun, edm churn and predictor_corrector have the network in two places, and so more of both
  memory   solve 6.1 to 6.2 MiB at every length; film 6.3 MiB for 10 steps, 22 for 1000
  speed    every sampler keeps 97 % or more of the network's speed; 0.98 to 1.06 times diffusers' evaluations a
           second, where the two networks differ by 1.02
  in all   six minutes

Each side has a process of its own. Devices are chosen by JAX_PLATFORMS and CUDA_VISIBLE_DEVICES. Times on a CPU are
worth something only where nothing else runs; instructions and bytes always are.
"""

import argparse
import os
import platform
import statistics
import time
from pathlib import Path

from tqdm import tqdm

from experiments.benchmarks.shared import (
    UNSTEADY,
    Side,
    absent,
    check_json,
    cores,
    count,
    processor,
    ratio,
    run,
    spread,
    table,
    unsteady,
    write_json,
)

# JAX and torch are imported by the sides alone: the environment is set first, and each has its own.

SAMPLERS = (
    "ancestral",
    "ddim",
    "euler",
    "heun",
    "edm churn",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "euler_maruyama",
    "predictor_corrector",
    "annealed_langevin",
)
WITHOUT_PEER = ("annealed_langevin",)
PARTS = ("compile", "memory", "speed")
UNROLLED = ("euler", (2, 8))  # the control of `compile`


# ---- Measuring. `ours` and `sides` are `Side`s, or functions that answer like them.


def measure_programs(options, ours) -> dict:
    """{"solve", "film" or "unrolled": {sampler: {steps: what `Ours.program` says, "seconds" and "tracing" lists}}}.

    Programs are compiled again in every repetition where times are asked for; film's once, for their memory.
    """
    solves = [("solve", name, steps) for name in options.samplers for steps in options.chains]
    repetitions = options.repetitions if "compile" in options.parts else 1
    # The first compilation of all, and of each sampler, pays for more than itself.
    jobs = [("warm-up", name, options.chains[0]) for name in options.samplers] if "compile" in options.parts else []
    jobs += solves * repetitions
    if "memory" in options.parts:
        jobs += [("film", name, steps) for _, name, steps in solves]
    if "compile" in options.parts:
        jobs += [("unrolled", UNROLLED[0], steps) for steps in UNROLLED[1]] * repetitions
    results = {}
    with tqdm(jobs, unit="program", dynamic_ncols=True) as bar:
        for run, name, steps in bar:
            bar.set_postfix_str(f"compiling {name}, {steps} steps, {run}")
            program = ours("program", name, steps, "solve" if run == "warm-up" else run)
            if run == "warm-up":
                continue
            kept = results.setdefault(run, {}).setdefault(name, {}).setdefault(steps, {"seconds": [], "tracing": []})
            for timing in ("seconds", "tracing"):
                kept[timing].append(program.pop(timing))
            kept.update(program)
    return results


def measure_speed(options, sides: list) -> list[dict]:
    """Per side {name: {"evaluations": n, "finite": bool, "seconds": [repetitions]}}, in turns on one device."""
    names = ["network", *options.samplers]
    able = [[name for name in names if i == 0 or name not in WITHOUT_PEER] for i in range(len(sides))]
    turns = [(r, name, i) for r in range(options.repetitions + 1) for name in names for i in range(len(sides))]
    turns = [(r, name, i) for r, name, i in turns if name in able[i]]
    results = [{} for _ in sides]
    with tqdm(turns, unit="chain", dynamic_ncols=True) as bar:
        for repetition, name, i in bar:
            bar.set_postfix_str(f"{('ours', 'peer')[i]}, {name}, {repetition or 'warm-up'}")
            if repetition == 0:
                results[i][name] = sides[i]("prepare", name) | {"seconds": []}
            else:
                results[i][name]["seconds"].append(sides[i]("seconds", name))
    return results


# ---- Tables, for people.


def compile_table(options, programs: dict) -> str:
    rows = [["sampler", *(f"{n} steps, s" for n in options.chains), *(f"{n}, HLO" for n in options.chains), "growth"]]
    for name, by_steps in programs["solve"].items():
        first, last = by_steps[options.chains[0]], by_steps[options.chains[-1]]
        growth = statistics.median(last["seconds"]) / statistics.median(first["seconds"])
        rows.append(
            [
                name,
                *(spread(by_steps[n]["seconds"]) for n in options.chains),
                *(f"{by_steps[n]['instructions']:,}" for n in options.chains),
                f"{growth:.2f}, {last['instructions'] - first['instructions']:+}",
            ]
        )
    name = UNROLLED[0]
    controls = [
        f"{steps} steps {spread(program['seconds'])} s, {program['instructions']:,} instructions"
        for steps, program in programs["unrolled"][name].items()
    ]
    return "\n".join(
        [
            "COMPILE: seconds of tracing, lowering and compiling, median (least to most), and HLO instructions;",
            f"growth of both from {options.chains[0]} to {options.chains[-1]} steps, the seconds' as a ratio",
            table(rows),
            f"the control, {name} unrolled in Python: {'; '.join(controls)}",
        ]
    )


def memory_table(options, programs: dict) -> str:
    chains = options.chains
    rows = [["sampler", *(f"solve, {n}" for n in chains), *(f"film, {n}" for n in chains), "coefficients, KiB"]]
    for name in options.samplers:
        solve, film = programs["solve"][name], programs["film"][name]
        rows.append(
            [
                name,
                *(f"{chain[n]['memory'] / 2**20:.2f}" for chain in (solve, film) for n in chains),
                f"{solve[chains[-1]]['coefficients'] / 2**10:.1f}",
            ]
        )
    return "\n".join(
        [
            "MEMORY: MiB of temporaries and results, by the number of steps; film, the control, keeps all steps;",
            f"coefficients are those of {chains[-1]} steps",
            table(rows),
        ]
    )


def speed_table(options, abouts: list[dict], speeds: list[dict]) -> str:
    rates = [
        {name: [r["evaluations"] / s for s in r["seconds"]] for name, r in results.items()} for results in speeds
    ]
    both = len(rates) == 2
    rows = [["sampler", "evaluations a step"]]
    for about in abouts:
        rows[0] += [f"{about['name']}, evaluations/s", "steps/s", "of network"]
    rows[0] += ["ours / peer"] * both
    for name in rates[0]:
        rows.append([name, f"{speeds[0][name]['evaluations'] / options.steps:.2f}"])
        for rate, results in zip(rates, speeds, strict=True):
            if name not in rate:
                rows[-1] += ["none", "", ""]
                continue
            steps = [options.steps / s for s in results[name]["seconds"]]
            share = statistics.median(rate[name]) / statistics.median(rate["network"])
            rows[-1] += [spread(rate[name]), f"{statistics.median(steps):.3g}", f"{share:.2f}"]
        if both and name in rates[1]:
            rows[-1].append(ratio(rates[0][name], rates[1][name]))
    return "\n".join(
        [
            f"SPEED: batch {options.batch}, {options.steps} steps; median (least to most) of {options.repetitions}"
            + ("; the ratio's range is over neighbouring repetitions" if both else ""),
            table(rows),
        ]
    )


def doubts(programs: dict, abouts: list[dict], speeds: list[dict]) -> list[str]:
    """What is wrong with the figures, if anything."""
    found = []
    if len({about["parameters"] for about in abouts}) > 1:
        found.append("the two networks have not the same number of parameters: the ratios mean nothing")
    for about, results in zip(abouts, speeds, strict=False):
        bad = [name for name, result in results.items() if not result["finite"]]
        if bad:
            found.append(f"{about['name']}: images are not finite: {', '.join(bad)}")
    solves = programs.get("solve", {})
    for what in ("instructions", "memory"):
        grown = [name for name, by_steps in solves.items() if len({p[what] for p in by_steps.values()}) > 1]
        if grown:
            found.append(f"{what} differ with the number of steps: {', '.join(grown)}")
    times = [result["seconds"] for results in speeds for result in results.values()]
    times += [p["seconds"] for chain in programs.values() for by_steps in chain.values() for p in by_steps.values()]
    differing = sum(map(unsteady, times))
    if differing:
        found.append(
            f"in {differing} of {len(times)} timings repetitions differ by more than {UNSTEADY} times (other work on "
            "the machine?): distrust them"
        )
    return found


# ---- The command line.


def main(arguments: list[str] | None = None):
    """The command `python -m experiments.benchmarks.samplers`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    options.chains = sorted(set(options.chains))
    longest = max(options.steps, options.chains[-1])
    if longest > 1000:
        parser.error(f"{longest} steps: the tables of betas have 1000")
    if not options.config.is_file():
        parser.error(f"--config {options.config}: there is no such file")
    check_json(parser, options.json)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer room on the same GPU
    started = time.perf_counter()
    ours = Side("experiments.benchmarks.samplers_ours", options)
    sides, abouts, programs, speeds = [ours], [ours("about")], {}, []
    print(
        f"images {'x'.join(map(str, abouts[0]['shape']))}, batch {options.batch}, on {abouts[0]['device']}\n"
        f"{processor()}, {cores()} cores; Python {platform.python_version()}",
        flush=True,
    )
    if {"compile", "memory"} & set(options.parts):
        programs = measure_programs(options, ours)
    if "compile" in options.parts:
        print(f"\n{compile_table(options, programs)}", flush=True)
    if "memory" in options.parts:
        print(f"\n{memory_table(options, programs)}", flush=True)
    if "speed" in options.parts:
        peer, why = _peer(options, abouts[0])
        if peer:
            sides.append(peer)
            abouts.append(peer("about"))
        speeds = measure_speed(options, sides)
        print(f"\n{speed_table(options, abouts, speeds)}")
        if why:
            print(why)
    for about in abouts:
        print(f"{about['name']}: {about['parameters']:,} parameters; {about['versions']}")
    for doubt in doubts(programs, abouts, speeds):
        print(f"DOUBTFUL: {doubt}")
    print(f"{time.perf_counter() - started:.0f} s in all")
    if options.json:
        write_json(options.json, options, sides=abouts, programs=programs, speed=speeds)


def _peer(options, ours: dict) -> tuple[Side | None, str]:
    """diffusers' side, or None and why."""
    if options.alone:
        return None, ""
    if missing := absent():
        return None, f"{missing} not installed: ours alone; pip install 'diffusion_jax[parity]' to compare"
    side = Side("experiments.benchmarks.samplers_peer", options, ours)
    return (side, "") if side.runs else (None, f"this torch sees no {ours['platform']}: ours alone")


def _parser():
    def several(text):
        if (value := int(text)) < 2:
            raise argparse.ArgumentTypeError(f"{text} must be at least 2")
        return value

    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.samplers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    every = {"nargs": "+", "metavar": "NAME"}
    add("--parts", **every, choices=PARTS, default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    add("--samplers", **every, choices=SAMPLERS, default=SAMPLERS, help=f"of {', '.join(SAMPLERS)}; all by default")
    chains = {"nargs": "+", "metavar": "N", "type": several, "default": [10, 100, 1000]}
    add("--chains", **chains, help="steps of the chains that are compiled (10 100 1000)")
    add("--steps", type=several, default=50, metavar="N", help="of the chains that are timed (%(default)s)")
    add("--batch", type=count, default=64, metavar="B", help="images at a time (%(default)s)")
    add("--repetitions", type=count, default=5, metavar="N", help="of everything that is timed (%(default)s)")
    add("--config", type=Path, default=Path("configs/digits.py"), metavar="PATH", help="whose U-Net (%(default)s)")
    add("--alone", action="store_true", help="ours only, even where diffusers is installed")
    add("--json", type=Path, metavar="PATH", help="also write every figure there")
    return parser


if __name__ == "__main__":
    run(main)
