"""Samplers: each a page, all run by the one loop in `core`."""

from diffusion_jax.samplers.ancestral import ancestral as ancestral
from diffusion_jax.samplers.core import Sampler as Sampler
from diffusion_jax.samplers.core import film as film
from diffusion_jax.samplers.core import make_sample_fn as make_sample_fn
from diffusion_jax.samplers.core import reporting as reporting
from diffusion_jax.samplers.core import solve as solve
