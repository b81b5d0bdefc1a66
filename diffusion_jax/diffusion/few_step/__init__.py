"""Samples in one step or a few: distillation of a teacher, consistency models, and average velocities.

Losses are as in `losses`, made by factories `(apply, parameterization, process) -> loss`. In place of one time they
are given several of one trajectory, a tree of arrays [B] (`losses.Context.t`), which a `time_sampling.Times` draws. A
teacher's parameters are held by the run (`Context.held`), a target network's are one of the averages.
"""

from diffusion_jax.diffusion.few_step import consistency as consistency
from diffusion_jax.diffusion.few_step import distances as distances
from diffusion_jax.diffusion.few_step import easy as easy
from diffusion_jax.diffusion.few_step import editing as editing
from diffusion_jax.diffusion.few_step import guided as guided
from diffusion_jax.diffusion.few_step import latent as latent
from diffusion_jax.diffusion.few_step import mean_flow as mean_flow
from diffusion_jax.diffusion.few_step import pairs as pairs
from diffusion_jax.diffusion.few_step import progressive as progressive
from diffusion_jax.diffusion.few_step import shortcut as shortcut
from diffusion_jax.diffusion.few_step import stages as stages
from diffusion_jax.diffusion.few_step import teachers as teachers
