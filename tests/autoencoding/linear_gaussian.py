"""A linear-Gaussian model of sequences whose every law is known: states of two numbers, each a layer; data of one.

z_0 ~ N(0, START), z_t = A z_(t-1) + N(0, Q), x_t = C z_t + N(0, R). The belief is Kalman's filter.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding.sequential import StateSpace
from diffusion_jax.core.distributions import Gaussian

A = np.array([[0.9, 0.3], [-0.25, 0.8]])
Q = np.array([[0.2, 0.05], [0.05, 0.1]])
C = np.array([[1.0, -0.5]])
R = np.array([[0.3]])
START = np.array([[1.0, 0.3], [0.3, 0.7]])


def moved(mean, cov, jump):
    """Mean and covariance of the state `jump` steps later."""
    for _ in range(jump):
        mean, cov = mean @ A.T, A @ cov @ A.T + Q
    return mean, cov


def updated(mean, cov, x):
    """Of a state, once its x is known."""
    gain = cov @ C.T @ np.linalg.inv(C @ cov @ C.T + R)
    return mean + (x - mean @ C.T) @ gain.T, cov - gain @ C @ cov


def kalman(x):
    """Means [B, T + 1, 2] and covariances [T + 1, 2, 2] of the states, given x_1, ..., x_t; x is [B, T, 1]."""
    mean, cov = jnp.zeros((len(x), 2)), START
    means, covs = [mean], [cov]
    for t in range(x.shape[1]):
        mean, cov = updated(*moved(mean, cov, 1), x[:, t])
        means.append(mean)
        covs.append(cov)
    return jnp.stack(means, 1), np.stack(covs)


def predictive(x, t, jump):
    """log p(x_(t + jump) | x_1, ..., x_t) of each sequence [B]; x_1 is x[:, 0]."""
    means, covs = kalman(x)
    mean, cov = moved(means[:, t], covs[t], jump)
    return Gaussian((mean @ C.T)[:, 0], (C @ cov @ C.T + R)[0, 0]).log_prob(x[:, t + jump - 1, 0])


def layered(mean, cov):
    """N(mean [B, 2], cov [B, 2, 2]) as a law of two layers, the first entry the higher."""

    def law(above):
        if not above:
            return Gaussian(mean[:, :1], cov[:, :1, :1][..., 0])
        slope = cov[:, 1, 0] / cov[:, 0, 0]
        rest = cov[:, 1, 1] - slope * cov[:, 0, 1]
        return Gaussian(mean[:, 1:] + slope[:, None] * (above[0] - mean[:, :1]), rest[:, None])

    return law


LONGEST = 4
POWERS = np.stack([np.linalg.matrix_power(A, jump) for jump in range(LONGEST + 1)])
NOISES = np.stack([moved(np.zeros(2), np.zeros((2, 2)), jump)[1] for jump in range(LONGEST + 1)])


def summary(params, x):
    means, covs = kalman(x)
    before = jnp.concatenate([jnp.zeros((len(x), 2, 1)), x], 1)[:, : x.shape[1] + 1]  # x_(t-1), at t
    return means, jnp.broadcast_to(covs, (len(x), *covs.shape)), before


def belief(params, b):
    return layered(*b[:2])


def transition(params, z1, jump):
    power, noise = jnp.asarray(POWERS)[jump], jnp.asarray(NOISES)[jump]
    return layered(jnp.einsum("bij,bj->bi", power, jnp.concatenate(z1, 1)), noise)


def smoothing(params, z2, b1, b2, jump):
    """p(z1 | z2, x_1, ..., x_t1), in proportion to p_B(z1 | b1) p_T(z2 | z1): the best there is, and free of b2."""
    power, noise = jnp.asarray(POWERS)[jump], jnp.asarray(NOISES)[jump]
    return layered(*jax.vmap(_given)(*b1[:2], power, noise, jnp.concatenate(z2, 1)))


def _given(mean, cov, power, noise, seen):
    """Of a state N(mean, cov), once `seen` = power state + N(0, noise) is known."""
    gain = cov @ power.T @ jnp.linalg.inv(power @ cov @ power.T + noise)
    return mean + gain @ (seen - power @ mean), cov - gain @ power @ cov


def smoothing_of_all(params, z2, b1, b2, jump):
    """p(z1 | z2, x_1, ..., x_t2) for jumps of 2, by what lies between: x_(t1 + 1)."""
    # x_(t1 + 1) and z2 are both linear in z1, with the noise of the step to t1 + 1 in common.
    power = np.concatenate([C @ A, A @ A])
    noise = np.block([[C @ Q @ C.T + R, C @ Q @ A.T], [A @ Q @ C.T, A @ Q @ A.T + Q]])
    seen = jnp.concatenate([b2[2], *z2], 1)
    return layered(*jax.vmap(lambda mean, cov, seen: _given(mean, cov, power, noise, seen))(*b1[:2], seen))


def decoder(params, z):
    mean = jnp.concatenate(z, 1) @ C.T
    return Gaussian(mean, jnp.broadcast_to(R[0], mean.shape))


PARTS = StateSpace(2, summary, belief, smoothing, transition, decoder)


def draw(num, length, seed):
    """Sequences [num, length, 1] of the model, float64."""
    rng = np.random.default_rng(seed)
    z, x = rng.multivariate_normal(np.zeros(2), START, num), []
    for _ in range(length):
        z = z @ A.T + rng.multivariate_normal(np.zeros(2), Q, num)
        x.append(z @ C.T + rng.normal(0, np.sqrt(R[0, 0]), (num, 1)))
    return np.stack(x, 1)


def joint(length):
    """The covariance [length, length] of x_1, ..., x_length."""
    cov, z = START, np.zeros((2 * length, 2 * length))
    for t in range(length):
        cov = A @ cov @ A.T + Q
        for s in range(t, length):
            later = POWERS[s - t] @ cov
            z[2 * s : 2 * s + 2, 2 * t : 2 * t + 2], z[2 * t : 2 * t + 2, 2 * s : 2 * s + 2] = later, later.T
    see = np.kron(np.eye(length), C)
    return see @ z @ see.T + R * np.eye(length)


def ends_of_two(t1, between):
    """The covariance [4, 4] of z_t1 and z_(t1 + 2), given all x but x_(t1 + 1), and it too where `between`."""
    _, covs = kalman(np.zeros((1, t1, 1)))
    start = covs[t1]
    middle = A @ start @ A.T + Q
    last = A @ middle @ A.T + Q
    cov = np.block(
        [
            [start, start @ A.T, start @ (A @ A).T],
            [A @ start, middle, middle @ A.T],
            [A @ A @ start, A @ middle, last],
        ]
    )
    see = np.kron([[0, 0, 1], [0, 1, 0]] if between else [[0, 0, 1]], C)
    cov = cov - cov @ see.T @ np.linalg.inv(see @ cov @ see.T + R * np.eye(len(see))) @ see @ cov
    ends = np.ix_([0, 1, 4, 5], [0, 1, 4, 5])
    return cov[ends]
