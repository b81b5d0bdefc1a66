"""Score matching at many noise levels, and annealed Langevin dynamics (NCSN, Song & Ermon 2019 and 2020)."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.core.protocols import Source
from diffusion_jax.diffusion import losses, parameterizations, processes, samplers, schedules, time_sampling
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, Method, composed

# Ten steps a level, each a tenth of the way to the estimate. Levels 13 % apart then lag by 2 % of their noise; with
# five steps of a twentieth it was 30 %, and the digits came out grainy.
LANGEVIN, PULL = 10, 0.1


def method(config: ConfigDict, source: Source, sigma_min: float, sigma_max: float, levels: int) -> Method:
    """NCSN as an experiment: 1/2 sigma^2 |score error|^2, and Langevin dynamics from the highest level down.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      sigma_min: lowest noise level, in units of pixels in [-1, 1]; 0.01 is a level of an image of 256.
      sigma_max: highest; about the largest distance between two training images (technique 1 of the second paper).
      levels: how many there are, geometrically spaced; sigma_max / sigma_min < 1.3^levels (technique 2) or so.
    """
    schedule = schedules.edm(sigma_max)
    ladder = np.geomspace(sigma_max, sigma_min, levels) / sigma_max
    position = 1000 / (levels - 1) / np.log(ladder[0] / ladder[1])

    # The network gives sigma times the score (technique 3), which is of order 1 at every level.
    score = parameterizations.score(schedule, lambda t: position * jnp.log(t / ladder[-1]))
    scaled = score._replace(read=lambda output, x_t, t: score.read(output / schedule.sigma(t), x_t, t))
    score_error = losses.squared_error(score)

    def criterion(output, x0, noise, x_t, t):
        sigma = schedule.sigma(t)
        return 0.5 * sigma**2 * score_error(output / sigma.reshape(-1, 1, 1, 1), x0, noise, x_t, t)

    def langevin(steps: int | None = None) -> Chain:
        sampler = samplers.annealed_langevin(schedule, LANGEVIN, eps=2 * PULL * sigma_min**2, denoised=True)
        return Chain(sampler, _grid(ladder, steps))

    def predictor_corrector(steps: int | None = None) -> Chain:
        sampler = samplers.predictor_corrector(schedule, samplers.euler_maruyama(schedule))
        return Chain(sampler, _grid(ladder, steps))

    return Method(
        pixels.data(config, source),
        model=pixels.unet(config),
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=scaled,
        loss=lambda *parts: losses.of_criterion(criterion, *parts),
        times=time_sampling.independent(time_sampling.among(ladder)),
        chains={"langevin": langevin, "predictor_corrector": predictor_corrector},
        preview="langevin",
    )


build = composed(method)


def _grid(ladder: np.ndarray, steps: int | None) -> np.ndarray:
    """All the levels, or `steps` of the same range; then 0."""
    return np.append(ladder if steps is None else np.geomspace(ladder[0], ladder[-1], steps), 0.0)
