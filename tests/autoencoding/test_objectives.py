"""What a rate costs in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import objectives
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.losses import Context


@pytest.mark.parametrize(("step", "moving", "sign"), [(0, 0.5, 1), (50, 11.0, -1), (50, 13.0, 1), (300, 20.0, -1)])
def test_a_capacity_rises_to_its_end_and_the_moving_rate_has_the_sign(step, moving, sign):
    """Of 25 nats in 100 steps, C is 0, 12.5 and 25. The slope by a rate is +-gamma, by the statistic the rate."""
    weigh = objectives.capacity(25.0, 100, 4.0, lambda params: params["rate"])
    rate = jnp.asarray([1.0, 30.0])

    def cost(rate, statistic):
        return weigh(rate, {"rate": statistic}, Context((), step)).mean()

    value, slopes = jax.value_and_grad(cost, (0, 1))(rate, jnp.asarray(moving))
    now = 25 * min(step / 100, 1)
    np.testing.assert_allclose(value, 4 * sign * (15.5 - now), rtol=1e-6)
    np.testing.assert_allclose(slopes[0], np.full(2, 2.0 * sign))
    np.testing.assert_allclose(slopes[1], 15.5)


def test_weights_and_capacities_without_sense_are_refused():
    for given in ((-1.0, 10, 1.0), (1.0, 0, 1.0), (1.0, 10, -1.0), (float("nan"), 10, 1.0)):
        with pytest.raises(InputError, match=r"a capacity of .* nats in .* steps"):
            objectives.capacity(*given, lambda params: params)
    for weight in (-1.0, float("nan")):
        with pytest.raises(InputError, match="a rate weighed by"):
            objectives.beta(weight)
