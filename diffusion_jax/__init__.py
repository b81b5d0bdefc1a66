"""Diffusion models in JAX: pure functions for the mathematics, Flax for the networks, one scan to sample."""

from diffusion_jax.errors import InputError as InputError

__version__ = "0.1.0"


def __getattr__(name: str):
    # Imported when it is asked for: the command lines listen to signals before they import JAX, which takes seconds.
    if name == "make_sample_fn":
        from diffusion_jax.samplers import make_sample_fn

        return make_sample_fn
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
