"""Experiments of which a part is another."""

import optax

from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.optimizers import Optimizer


def task(experiment: Experiment, **parts) -> Experiment:
    """`experiment` with other parts of its task."""
    return experiment._replace(task=experiment.task._replace(**parts))


def trained_by(experiment: Experiment, transformation: optax.GradientTransformation) -> Experiment:
    """`experiment` with another optimiser, of which no rate is logged."""
    optimization = experiment.optimization._replace(optimizer=Optimizer(transformation))
    return experiment._replace(optimization=optimization)
