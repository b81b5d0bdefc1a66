"""Masked diffusion of tokens (MDLM, Sahoo et al. 2024): hidden one by one, and guessed back in any order."""

from functools import partial

from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.core.distributions import draw
from diffusion_jax.diffusion import losses_discrete, parameterizations, processes, samplers, time_sampling, timesteps
from diffusion_jax.diffusion.processes.categorical import linear_alpha
from diffusion_jax.methods import likelihoods
from diffusion_jax.methods.compose import Chain, Data, Method, composed


def method(config: ConfigDict, data: Data, model: nn.Module, vocab: int) -> Method:
    """Masked diffusion as an experiment; its loss is a bound of -log p(x0), in nats a token.

    Args:
      config: values, with the sections of `compose.base_config`.
      data: tokens 0, ..., vocab - 1, of any shape.
      model: gives logits of vocab + 1 tokens; the last is the mask, which it never predicts.
      vocab: number of tokens, the mask not counted.
    """
    process = processes.masked(linear_alpha, vocab + 1, mask=vocab)

    def unmask(steps: int = 100) -> Chain:
        return Chain(samplers.ancestral(process, end=draw), timesteps.linear(steps))

    return Method(
        data,
        model=model,
        process=process,
        parameterization=parameterizations.substitution(vocab, parameterizations.thousandths),
        loss=partial(losses_discrete.mdlm, alpha=linear_alpha),
        times=time_sampling.stratified(time_sampling.uniform(first=1e-3)),
        chains={"unmask": unmask},
        preview="unmask",
        likelihoods={"bound": likelihoods.masked(process, linear_alpha)},
    )


build = composed(method)
