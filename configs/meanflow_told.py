"""Improved MeanFlow of handwritten digits by their label, told the scale of guidance: `--guidance` picks it.

  python -m diffusion_jax.train --config configs/meanflow_told.py --workdir runs/meanflow_told
  python -m diffusion_jax.sample --workdir runs/meanflow_told --num 100 --label 3,8 --guidance 3

3000 steps. What to expect of 1000 images (`python -m experiments.digits_quality --workdir runs/meanflow_told
--guidance G --steps N`, one run), FD and how often a classifier agrees with the label:

  steps                 1               2               4      nearest at one
  guidance 1     2.32  99.3 %    2.06  98.0 %    1.92  98.2 %            1.05
  guidance 2     6.65   100 %    6.52  99.9 %    6.80   100 %            0.98
  guidance 3     10.3   100 %    10.6   100 %    11.4   100 %            0.98

configs/meanflow_guided.py, which learns guidance 2 alone, has 5.90 and 5.78 in one step and two.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion.few_step.mean_flow import predicted
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import guided, mean_flow, told
from diffusion_jax.models import two_times

CLASSES = 10


def get_config():
    config = told.with_scales(mean_flow.with_pairs(pixels.config_digits()))
    config.mean_flow.most_scale = 4.0
    return config


def build(config):
    data = guided.told(guided.labelled(config, sources.digits, CLASSES))
    model = two_times.listening(guided.student_of(guided.network(config, CLASSES)))
    base = mean_flow.method(config, data, model, along=predicted)
    return compose(config, told.method(config, base, CLASSES))
