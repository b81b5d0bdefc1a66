"""Diffusion models in JAX: pure functions for the mathematics, Flax for the networks, one scan to sample.

`from diffusion_jax import schedules, processes, samplers, make_sample_fn`, and what else is named below: modules are
imported when they are asked for, for the command lines listen to signals before they import JAX, which takes seconds.
"""

import importlib

from diffusion_jax.core.errors import InputError as InputError

__version__ = "0.1.0"

_MODULES = {
    "core": "arrays distributions errors files resizing rng",
    "diffusion": (
        "analog_bits cascades editing few_step gaussian guidance inpainting likelihood losses losses_bound "
        "losses_discrete parameterizations processes samplers schedules spans timesteps time_sampling variances"
    ),
    "data": "conditions hints images views",
    "config": "values",
}
_PACKAGES = "config data evaluation methods models pretrained training"
_PLACES = {name: f"{folder}.{name}" for folder, names in _MODULES.items() for name in names.split()}
_PLACES |= {name: name for name in _PACKAGES.split()}


def __getattr__(name: str):
    if name == "make_sample_fn":
        from diffusion_jax.diffusion.samplers import make_sample_fn

        return make_sample_fn
    if name in _PLACES:
        return importlib.import_module(f"diffusion_jax.{_PLACES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_PLACES, "make_sample_fn"])
