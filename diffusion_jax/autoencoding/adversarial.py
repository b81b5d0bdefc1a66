"""A decoder against a discriminator (Goodfellow et al. 2014), as first stages are trained (Esser et al. 2021, 3.2).

Both are trained by one loss of one example. Stopped gradients make it two: what is decoded is a constant to the
discriminator, and the discriminator to what is decoded.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from diffusion_jax.autoencoding.codes import total
from diffusion_jax.autoencoding.statistics import observe
from diffusion_jax.core.distributions import mean_over_entries
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Compare, DecodeLatents, Discriminate, Distort, Lose, Tree

sg = jax.lax.stop_gradient
FLOOR, MOST = 1e-4, 1e4  # beside the norm that is divided by, and of the quotient


def hinge(real: jax.Array, made: jax.Array) -> jax.Array:
    """1/2 (relu(1 - D(x)) + relu(1 + D(x^))) [B], a mean over patches: what a discriminator loses."""
    return 0.5 * mean_over_entries(jax.nn.relu(1 - real) + jax.nn.relu(1 + made))


def vanilla(real: jax.Array, made: jax.Array) -> jax.Array:
    """1/2 (softplus(-D(x)) + softplus(D(x^))) [B], a mean over patches: half of two cross-entropies."""
    return 0.5 * mean_over_entries(jax.nn.softplus(-real) + jax.nn.softplus(made))


def generator(made: jax.Array) -> jax.Array:
    """-D(x^) [B], a mean over patches: what the decoder loses."""
    return -mean_over_entries(made)


def adaptive(error: Tree, judged: Tree) -> jax.Array:
    """|error| / (|judged| + 1e-4), between 0 and 1e4 (Esser et al. 2021, equation 7): a constant scalar.

    Args:
      error, judged: the gradients, by the decoder's last kernel, of the error and of what the decoder loses to the
        discriminator. Norms are those of the whole batch's gradients; of shares they are others.
    """
    return sg(jnp.clip(_norm(error) / (_norm(judged) + FLOOR), 0.0, MOST))


def _norm(x):
    return jnp.sqrt(jnp.sum(x**2))


def balance(kernel: jax.Array) -> dict[str, jax.Array]:
    """The statistics that `against` observes, at the start: no gradient yet, so the first update has no weight."""
    return {"error": jnp.zeros_like(kernel), "judged": jnp.zeros_like(kernel)}


def against(
    decode: DecodeLatents,
    compare: Compare,
    discriminate: Discriminate,
    weight: float,
    start: int,
    lose: Lose = hinge,
    kernel: tuple[str, ...] = ("decoder", "output_conv", "kernel"),
    statistics: str = "balance",
) -> Distort:
    """What `compare` says of what is decoded, and a discriminator, from the update `start` on.

    The decoder loses w (-D(x^)) to it, w = `weight` |d error / dW| / |d (-D(x^)) / dW|, W its last kernel
    (`adaptive`). Both gradients are linear in examples, and come out of the loss as statistics (`statistics`). So
    their norms are those of the global batch, whatever the devices and parts. But they are those of the update
    before, or of a moving average (`training.optimizers.moving`): an update knows its own gradient only at its end.

    Args:
      decode: `(params, z) -> x^`.
      compare: the error of x^ (`distortions`).
      discriminate: `(params, x) -> logits [B, ...]`, large for what is real; each example on its own.
      weight: of the adaptive weight, >= 0.
      start: updates before it; until then the discriminator is not trained and has no weight.
      lose: `(D(x), D(x^)) -> [B]`, `hinge` or `vanilla`.
      kernel: where W lies among the parameters.
      statistics: where the statistics do, which `balance` starts.

    Returns:
      `(params, x, z, context) -> (cost [B], info)`. Logged beside what `compare` says are "generator", -D(x^), the
      "discriminator"'s loss, from the first update on, and "weight", w.

    Raises:
      InputError: `weight` or `start` is negative.
    """
    if not weight >= 0:
        raise InputError(f"a discriminator weighed by {weight}; give a number >= 0")
    if start < 0:
        raise InputError(f"a discriminator that starts at update {start}; give 0 or more")

    def distort(params, x, z, context):
        # One forward pass each. What is pulled back are constants: only the gradient of x^ goes on into the decoder.
        made, to_kernel = jax.vjp(lambda w: decode(_placed(params, kernel, w), z), _at(params, kernel))
        error, to_error, info = jax.vjp(lambda made: compare(params, x, made, context), sg(made), has_aux=True)
        logits, to_logits = jax.vjp(lambda made: discriminate(params, made), sg(made))
        lost, to_lost = jax.vjp(generator, logits)
        each = jnp.ones_like(lost)
        (by_error,) = sg(to_error(jnp.ones_like(error)))
        (by_judge,) = sg(to_logits(*to_lost(each)))

        seen = {"error": by_error, "judged": by_judge}
        observed = [observe(params[statistics][name], _mean(to_kernel(seen[name]), len(x))) for name in seen]
        now = (jnp.asarray(context.step) >= start).astype(error.dtype)
        w = now * weight * adaptive(**params[statistics])
        step = total((by_error + w * by_judge) * (made - sg(made)))  # 0, with the gradient of both by x^
        judged = lose(discriminate(params, x), logits)
        cost = error + step + w * sg(lost) + now * judged + sum(observed)
        return cost, {**info, "generator": lost, "discriminator": judged, "weight": w * each}

    return distort


def _mean(pulled, size: int):
    """The gradient of a mean over examples, [1, ...], of that of their sum: the same for each."""
    return pulled[0][None] / size


def _at(params: Tree, path: Sequence[str]) -> jax.Array:
    return params if not path else _at(params[path[0]], path[1:])


def _placed(params: Tree, path: Sequence[str], value: jax.Array) -> Tree:
    return value if not path else {**params, path[0]: _placed(params[path[0]], path[1:], value)}
