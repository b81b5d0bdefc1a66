"""Samplers: each a page, all run by the one loop in `core`."""

from diffusion_jax.diffusion.samplers.adams import deis, lms
from diffusion_jax.diffusion.samplers.adaptive import PID, dpm_adaptive
from diffusion_jax.diffusion.samplers.ancestral import ancestral, each_its_own, on_mean
from diffusion_jax.diffusion.samplers.breaking import Break, breaking
from diffusion_jax.diffusion.samplers.churn import churned, edm
from diffusion_jax.diffusion.samplers.core import Film, Sampler, film, make_sample_fn, reporting, solve
from diffusion_jax.diffusion.samplers.ddim import ddim
from diffusion_jax.diffusion.samplers.dpm import dpm_multistep, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde
from diffusion_jax.diffusion.samplers.dpmpp_sde import dpmpp_sde
from diffusion_jax.diffusion.samplers.ending import ended
from diffusion_jax.diffusion.samplers.fast import dpm_fast
from diffusion_jax.diffusion.samplers.in_turn import Turn, in_turn
from diffusion_jax.diffusion.samplers.inversion import invert
from diffusion_jax.diffusion.samplers.jump import jump
from diffusion_jax.diffusion.samplers.langevin import annealed_langevin
from diffusion_jax.diffusion.samplers.multistep import at_most
from diffusion_jax.diffusion.samplers.ode import euler, heun
from diffusion_jax.diffusion.samplers.pndm import plms, pndm
from diffusion_jax.diffusion.samplers.positions import positions
from diffusion_jax.diffusion.samplers.sde import corrector_predictor, euler_maruyama, predictor_corrector
from diffusion_jax.diffusion.samplers.singlestep import cycles, dpm_singlestep
from diffusion_jax.diffusion.samplers.two_looks import dpm_2, dpmpp_2s
from diffusion_jax.diffusion.samplers.unipc import bh1, bh2, unipc

__all__ = [
    "PID",
    "Break",
    "Film",
    "Sampler",
    "Turn",
    "ancestral",
    "annealed_langevin",
    "at_most",
    "bh1",
    "bh2",
    "breaking",
    "churned",
    "corrector_predictor",
    "cycles",
    "ddim",
    "deis",
    "dpm_2",
    "dpm_adaptive",
    "dpm_fast",
    "dpm_multistep",
    "dpm_singlestep",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "each_its_own",
    "edm",
    "ended",
    "euler",
    "euler_maruyama",
    "film",
    "heun",
    "in_turn",
    "invert",
    "jump",
    "lms",
    "make_sample_fn",
    "on_mean",
    "plms",
    "pndm",
    "positions",
    "predictor_corrector",
    "reporting",
    "solve",
    "unipc",
]
