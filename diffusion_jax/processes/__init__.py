"""Processes: ways to destroy data, each with the bridge that undoes one step of it."""

from diffusion_jax.processes.core import Process as Process
from diffusion_jax.processes.core import check_interval as check_interval
from diffusion_jax.processes.degradation import cold as cold
from diffusion_jax.processes.degradation import noisy as noisy
from diffusion_jax.processes.gaussian import ddim as ddim
from diffusion_jax.processes.gaussian import gaussian as gaussian
from diffusion_jax.processes.gaussian import renoise as renoise
from diffusion_jax.processes.heat import heat_dissipation as heat_dissipation
from diffusion_jax.processes.joint import product as product
