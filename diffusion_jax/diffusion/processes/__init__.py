"""Processes: ways to destroy data, each with the bridge that undoes one step of it."""

from diffusion_jax.diffusion.processes.blurring import blurring, eps_in_pixels, sin_squared
from diffusion_jax.diffusion.processes.categorical import (
    categorical,
    cosine_alpha,
    general,
    linear_alpha,
    masked,
    uniform,
)
from diffusion_jax.diffusion.processes.core import Process, check_interval, from_the_end
from diffusion_jax.diffusion.processes.degradation import cold, noisy
from diffusion_jax.diffusion.processes.deletion import deletion
from diffusion_jax.diffusion.processes.edit import edit
from diffusion_jax.diffusion.processes.gaussian import ddim, gaussian, renoise
from diffusion_jax.diffusion.processes.heat import heat_dissipation
from diffusion_jax.diffusion.processes.joint import product
from diffusion_jax.diffusion.processes.memory import self_conditioned
from diffusion_jax.diffusion.processes.pushed import pushed
from diffusion_jax.diffusion.processes.raster import raster

__all__ = [
    "Process",
    "blurring",
    "categorical",
    "check_interval",
    "cold",
    "cosine_alpha",
    "ddim",
    "deletion",
    "edit",
    "eps_in_pixels",
    "from_the_end",
    "gaussian",
    "general",
    "heat_dissipation",
    "linear_alpha",
    "masked",
    "noisy",
    "product",
    "pushed",
    "raster",
    "renoise",
    "self_conditioned",
    "sin_squared",
    "uniform",
]
