"""What is measured of held-out data: likelihoods, and the codes of autoencoders."""

import argparse
from collections.abc import Callable

import numpy as np

from diffusion_jax.app import resolve, sampling
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import LikelihoodFn
from diffusion_jax.evaluation import quality, report
from diffusion_jax.training.experiment import Experiment

DRAWS = 500  # of a code, for each example


def likelihood(options: argparse.Namespace, experiment: Experiment) -> Callable[[], tuple[dict, list]]:
    """`() -> (what the likelihood found, the figure of its terms)`; what cannot be measured is refused here."""
    name = options.likelihood
    measures = experiment.measures
    if name not in {**measures.likelihoods, **measures.averaged}:
        known = ", ".join([*measures.likelihoods, *measures.averaged]) or "none"
        raise InputError(f"no likelihood {name} for this model; it has {known}")
    split, source, count = _examples(options, experiment)
    if name in measures.averaged:
        if options.steps or options.tolerance is not None:
            raise InputError(f"{name} averages over draws and has no chain; give --draws, not --steps or --tolerance")
        function = measures.averaged[name](options.draws or DRAWS)
    elif options.draws is not None:
        raise InputError(f"{name} averages over no draws of a code; leave --draws {options.draws} out")
    elif options.tolerance is None:
        function = experiment.measures.likelihoods[name](options.steps)
    elif name in experiment.measures.solved:
        function = experiment.measures.solved[name](options.tolerance)
    else:
        raise InputError(
            f"this model's {name} is not solved to a tolerance, as flows are that are known at every time; "
            "leave --tolerance out, or give --steps"
        )
    return lambda: _measured(options, experiment, function, split, source, count)


def _examples(options, experiment: Experiment):
    """(split, source, how many) of the examples that likelihoods and codes are measured on."""
    split = options.reference if options.reference in ("train", "test") else "test"
    source = experiment.data.source(split)
    return split, source, min(len(source), options.examples or len(source))


def survey(options: argparse.Namespace, experiment: Experiment) -> Callable[[], tuple[dict, dict, int]]:
    """`() -> (metrics, how they were measured, of which step)` of `--codes`."""
    asked = experiment.measures.survey
    if asked is None:
        raise InputError("this model has no codes to measure; leave --codes out")
    split, source, count = _examples(options, experiment)

    def measured():
        step, params = resolve.read(options.workdir, experiment, resolve.which(options), options.step)
        parallel = sampling.spread(params, min(options.batch, count), options.fsdp)
        found = quality.survey(asked, params, experiment.data, source, count, options.batch, options.seed, parallel)
        sha256 = quality.digest(source, experiment.data.example, count)
        return found, {"split": split, "examples": count, "sha256": sha256, "seed": options.seed}, step

    return measured


def _measured(options, experiment: Experiment, function: LikelihoodFn, split: str, source, count: int):
    name, which = options.likelihood, resolve.which(options)
    step, params = resolve.read(options.workdir, experiment, which, options.step)
    parallel = sampling.spread(params, min(options.batch, count), options.fsdp)
    found = quality.likelihood(
        function, params, experiment.data, source, count, options.batch, options.seed, parallel
    )
    metrics = {f"{name}, bits an entry": found["total"]}
    for part in ("rate", "distortion", "prior"):
        if part in found:
            metrics[f"{name}, {part}"] = found[part]
    if "error" in found:
        metrics[f"{name}, error of an example"] = found["error"]
    if found.get("noise"):
        metrics[f"{name}, noise of an example's trace"] = found["noise"]
    if "evaluations" in found:
        metrics[f"{name}, network evaluations"] = found["evaluations"]
    about = {
        "metrics": metrics,
        "protocol": {
            "name": name,
            "data": {
                "split": split,
                "examples": count,
                "sha256": quality.digest(source, experiment.data.example, count),
            },
            **_steps(options, experiment),
            "seed": options.seed,
        },
        "step": step,
        "weights": f"{which.kind} of step {step}",
        "standard_error": found["standard_error"],
    }
    if "terms" not in found:
        return about, []
    terms = np.asarray(found["terms"]).tolist()
    # The grid is even, from noise to data; the last step is the decoder's.
    curve = report.curve((1 - np.arange(len(terms)) / (len(terms) + 1)).tolist(), terms)
    return about | {"terms": terms}, [("The terms of the bound, bits an entry, from data to noise", curve)]


def _steps(options, experiment: Experiment) -> dict:
    """How far apart the likelihood's steps are, or over how many draws it averages, for its protocol."""
    if options.likelihood in experiment.measures.averaged:
        return {"draws": options.draws or DRAWS}
    if options.tolerance is None:
        return {"steps": options.steps or "the model's own"}
    return {"steps": "the tolerance's", "tolerance": options.tolerance}
