"""Diffusion models in JAX: pure functions for the mathematics, Flax for the networks, one scan to sample."""

from diffusion_jax.errors import InputError as InputError
from diffusion_jax.samplers import make_sample_fn as make_sample_fn

__version__ = "0.1.0"
