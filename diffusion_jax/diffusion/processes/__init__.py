"""Processes: ways to destroy data, each with the bridge that undoes one step of it."""

from diffusion_jax.diffusion.processes.blurring import blurring as blurring
from diffusion_jax.diffusion.processes.blurring import eps_in_pixels as eps_in_pixels
from diffusion_jax.diffusion.processes.blurring import sin_squared as sin_squared
from diffusion_jax.diffusion.processes.categorical import categorical as categorical
from diffusion_jax.diffusion.processes.categorical import cosine_alpha as cosine_alpha
from diffusion_jax.diffusion.processes.categorical import general as general
from diffusion_jax.diffusion.processes.categorical import linear_alpha as linear_alpha
from diffusion_jax.diffusion.processes.categorical import masked as masked
from diffusion_jax.diffusion.processes.categorical import uniform as uniform
from diffusion_jax.diffusion.processes.core import Process as Process
from diffusion_jax.diffusion.processes.core import check_interval as check_interval
from diffusion_jax.diffusion.processes.core import from_the_end as from_the_end
from diffusion_jax.diffusion.processes.degradation import cold as cold
from diffusion_jax.diffusion.processes.degradation import noisy as noisy
from diffusion_jax.diffusion.processes.deletion import deletion as deletion
from diffusion_jax.diffusion.processes.edit import edit as edit
from diffusion_jax.diffusion.processes.gaussian import ddim as ddim
from diffusion_jax.diffusion.processes.gaussian import gaussian as gaussian
from diffusion_jax.diffusion.processes.gaussian import renoise as renoise
from diffusion_jax.diffusion.processes.heat import heat_dissipation as heat_dissipation
from diffusion_jax.diffusion.processes.joint import product as product
from diffusion_jax.diffusion.processes.memory import self_conditioned as self_conditioned
from diffusion_jax.diffusion.processes.pushed import pushed as pushed
