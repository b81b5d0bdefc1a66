"""Samples in one step or a few: distillation of a teacher, consistency models, and average velocities.

Losses are as in `losses`, made by factories `(apply, parameterization, process) -> loss`. In place of one time they
are given several of one trajectory, a tree of arrays [B] (`losses.Context.t`), which a `time_sampling.Times` draws. A
teacher's parameters are held by the run (`Context.held`), a target network's are one of the averages.
"""

from diffusion_jax.diffusion.few_step import (
    consistency,
    distances,
    easy,
    editing,
    guided,
    latent,
    mean_flow,
    pairs,
    progressive,
    shortcut,
    stages,
    teachers,
)

__all__ = [
    "consistency",
    "distances",
    "easy",
    "editing",
    "guided",
    "latent",
    "mean_flow",
    "pairs",
    "progressive",
    "shortcut",
    "stages",
    "teachers",
]
