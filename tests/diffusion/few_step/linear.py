"""A student with one number for every time, and Gaussian data whose moments every example has exactly.

Four entries of an example stand for the four signs of x0 and of the noise: a mean over them is the expectation under
N(0, S^2) of whatever is of second order. So training has fixed points without noise, in closed form.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion_jax.diffusion import parameterizations, processes
from diffusion_jax.diffusion.gaussian import q_sample
from diffusion_jax.parallel.replicated import AXIS
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step

S = 0.5
X0 = jnp.tile(S * jnp.array([1.0, 1.0, -1.0, -1.0]), (64, 1))
NOISE = jnp.array([1.0, -1.0, 1.0, -1.0])


def process_of(schedule):
    """Gaussian noise of `schedule`, but the noise is `NOISE`."""

    def corrupt(key, x0, t):
        return q_sample(schedule, x0, t, NOISE.astype(x0.dtype)), NOISE

    return processes.gaussian(schedule)._replace(corrupt=corrupt)


def student(times):
    """(apply, parameterization, init) of x0 = c x_t, with c a number for each of `times` [N]; they start as 1/2."""
    times = np.asarray(times, np.float32)

    def apply(params, x, time, *cond, dropout_keys=None):
        return jnp.asarray(params["c"])[jnp.abs(time[:, None] - times).argmin(1)][:, None] * x

    return apply, parameterizations.x0(lambda t: jnp.asarray(t)), {"c": jnp.full(len(times), 0.5)}


def optimal(schedule):
    """`(params, x_t, t) -> x0`, the best of data N(0, params["s"]^2), and its parameters."""

    def apply(params, x, t, *cond):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        return alpha * params["s"] ** 2 / ((alpha * params["s"]) ** 2 + sigma**2) * x

    return apply, parameterizations.x0(lambda t: jnp.asarray(t)), {"s": jnp.asarray(S)}


def trained(loss, times, init, steps, rate=1.0, averages=None, held=None):
    """(state, loss of every step) after SGD, in one scan of the training step of one device."""
    optimizer, averages = optax.sgd(rate), averages or {}
    step = make_train_step(loss, times, optimizer, 0.9, 3, averages=averages)
    mapped = jax.vmap(step, in_axes=(None, 0, None), out_axes=None, axis_name=AXIS)

    @jax.jit
    def run(state, held):
        def body(state, _):
            state, metrics = mapped(state, X0[None], held)
            return state, metrics["loss"]

        return jax.lax.scan(body, state, None, length=steps)

    state = init_state(lambda key: init, optimizer, times, jax.random.key(0), averages)
    return jax.device_get(run(state, held or {}))
