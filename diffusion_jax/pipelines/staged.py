"""Models of several stages, to draw from."""

from diffusion_jax.core import rng
from diffusion_jax.core.protocols import SampleFn
from diffusion_jax.diffusion import stages
from diffusion_jax.training.experiment import MakeSampler, SampleRequest


def keyed(name: str, make: MakeSampler) -> MakeSampler:
    """A sampler as that of the stage `name` of a pipeline: it draws by the stage's keys (`stages.keys_of`)."""

    def made(request: SampleRequest) -> SampleFn:
        draw = make(request)
        return lambda params, key, *cond: draw(params, stages.keys_of(name, rng.of_batch(key, request.batch)), *cond)

    return made
