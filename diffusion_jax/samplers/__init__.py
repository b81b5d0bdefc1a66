"""Samplers: each a page, all run by the one loop in `core`."""

from diffusion_jax.samplers.ancestral import ancestral as ancestral
from diffusion_jax.samplers.ancestral import each_its_own as each_its_own
from diffusion_jax.samplers.ancestral import on_mean as on_mean
from diffusion_jax.samplers.churn import edm as edm
from diffusion_jax.samplers.core import Sampler as Sampler
from diffusion_jax.samplers.core import film as film
from diffusion_jax.samplers.core import make_sample_fn as make_sample_fn
from diffusion_jax.samplers.core import reporting as reporting
from diffusion_jax.samplers.core import solve as solve
from diffusion_jax.samplers.ddim import ddim as ddim
from diffusion_jax.samplers.dpm import dpm_multistep as dpm_multistep
from diffusion_jax.samplers.dpm import dpmpp_2m as dpmpp_2m
from diffusion_jax.samplers.dpm import dpmpp_2m_sde as dpmpp_2m_sde
from diffusion_jax.samplers.dpm import dpmpp_3m_sde as dpmpp_3m_sde
from diffusion_jax.samplers.inversion import invert as invert
from diffusion_jax.samplers.langevin import annealed_langevin as annealed_langevin
from diffusion_jax.samplers.multistep import at_most as at_most
from diffusion_jax.samplers.ode import euler as euler
from diffusion_jax.samplers.ode import heun as heun
from diffusion_jax.samplers.pndm import plms as plms
from diffusion_jax.samplers.pndm import pndm as pndm
from diffusion_jax.samplers.sde import euler_maruyama as euler_maruyama
from diffusion_jax.samplers.sde import predictor_corrector as predictor_corrector
