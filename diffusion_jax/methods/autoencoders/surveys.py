"""What is measured of a whole set of examples: errors, rates, how many numbers of a code are used."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding import quantizers
from diffusion_jax.autoencoding.codes import reconstructed, total
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import mean_over_entries
from diffusion_jax.core.protocols import Coder, Decode, Distance, Encode, Spoil
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.training.experiment import Survey

ACTIVE = 0.01  # variance of a code's mean over the data from which on it counts as used (Burda et al. 2016)


def joined(*surveys: Survey) -> Survey:
    """All of them in one pass."""

    def each(params, keys, x):
        found = [one.each(params, keys, x) for one in surveys]
        return {f"{n}/{name}": array for n, arrays in enumerate(found) for name, array in arrays.items()}

    def summary(found):
        together = {}
        for n, one in enumerate(surveys):
            own = {name.partition("/")[2]: array for name, array in found.items() if name.startswith(f"{n}/")}
            together |= one.summary(own)
        return together

    return Survey(each, summary)


def errors(code: Coder, decode: Decode) -> Survey:
    """The mean squared error of reconstruction, of an entry; the evidence lower bound and its two parts, nats."""

    def each(params, keys, x):
        coded = code(params, keys, x)
        law = decode(params, coded.z)
        distortion = -total(law.log_prob(x))
        return {
            "reconstruction error": mean_over_entries((law.mean - x) ** 2),
            "rate, nats": coded.rate,
            "distortion, nats": distortion,
            "ELBO, nats": -distortion - coded.rate,
        }

    return Survey(each, means)


def likeness(code: Coder, decode: Decode) -> Survey:
    """Of images in [-1, 1], as 8 bits have them: the mean squared error of a pixel in [0, 1], and the mean PSNR, dB.

    The peak signal-to-noise ratio -10 log10(MSE) is each image's own. That of an image without any error would
    be infinite; it is taken for that of one level in one entry.
    """
    rebuild = reconstructed(code, decode)

    def levels(x):
        return jnp.round(jnp.clip((x + 1) * 127.5, 0, 255))

    def each(params, keys, x):
        error = mean_over_entries((levels(rebuild(params, keys, x)) - levels(x)) ** 2) / 255**2
        least = 1 / (255**2 * math.prod(x.shape[1:]))
        return {"MSE of pixels in [0, 1]": error, "PSNR, dB": -10 * jnp.log10(jnp.maximum(error, least))}

    return Survey(each, means)


def apart(name: str, distance: Distance, code: Coder, decode: Decode) -> Survey:
    """The mean distance of an example and what is made of it; of `params` it is shown those that a run holds, too."""
    rebuild = reconstructed(code, decode)

    def each(params, keys, x):
        return {name: distance(rebuild(params, keys, x), x, Context((), held=params))}

    return Survey(each, means)


def latents(code: Coder) -> Survey:
    """Mean and standard deviation of all entries of what a first stage encodes, drawn where the code is a law."""

    def each(params, keys, x):
        z = code(params, keys, x).z
        return {"first": mean_over_entries(z), "second": mean_over_entries(z**2)}

    def summary(found):
        of = means(found)
        return {"latents, mean": of["first"], "latents, deviation": math.sqrt(of["second"] - of["first"] ** 2)}

    return Survey(each, summary)


def restored(spoil: Spoil, code: Coder, decode: Decode) -> Survey:
    """Mean squared errors, of an entry, of spoilt examples and of what is made of them, against the clean ones."""
    rebuild = reconstructed(code, decode)

    def each(params, keys, x):
        spoil_keys, keys = rng.split(keys, 2)
        shown = jax.vmap(spoil)(spoil_keys, x)
        made = rebuild(params, keys, shown)
        return {
            "error of the spoilt": mean_over_entries((shown - x) ** 2),
            "error of the restored": mean_over_entries((made - x) ** 2),
        }

    return Survey(each, means)


def active_units(encode: Encode) -> Survey:
    """How many numbers of a code have a mean that varies with x by more than `ACTIVE` (Burda et al. 2016, 5)."""

    def summary(found):
        return {"active units": float((found["mean"].var(axis=0) > ACTIVE).sum())}

    return Survey(lambda params, keys, x: {"mean": encode(params, x).mean}, summary)


def units_in_use(code: Coder) -> Survey:
    """How many units are other than 0 for one example at least, of k-sparse codes."""

    def summary(found):
        return {"units in use": float((found["z"] != 0).any(axis=0).sum())}

    return Survey(lambda params, keys, x: {"z": code(params, keys, x).z}, summary)


def usage(code: Coder, vocab: int) -> Survey:
    """How many codes are used, and as how many if equally: exp of the entropy of their frequencies in the whole set.

    Args:
      code: keeps indices [B, ...] below `vocab`, or a dictionary of such, each of which is measured.
      vocab: of each.
    """

    def each(params, keys, x):
        kept = code(params, keys, x).kept
        return kept if isinstance(kept, Mapping) else {"": kept}

    def summary(found):
        numbers = {}
        for name, indices in found.items():
            counts = quantizers.counted(np.asarray(indices), vocab)
            numbers |= {
                f"{name} perplexity".strip(): float(quantizers.perplexity(counts)),
                f"{name} codes used".strip(): float((counts > 0).sum()),
            }
        return numbers

    return Survey(each, summary)


def mean_activation(encode: Encode) -> Survey:
    """The mean of all units, of sparse codes."""
    return Survey(lambda params, keys, x: {"mean activation": mean_over_entries(encode(params, x).mean)}, means)


def penalty(name: str, of: Callable[[object, jax.Array, jax.Array], jax.Array]) -> Survey:
    """The mean of `of(params, keys, x)` [B], as `name`."""
    return Survey(lambda params, keys, x: {name: of(params, keys, x)}, means)


def means(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean of each array, in float64."""
    return {name: float(np.asarray(array, np.float64).mean()) for name, array in found.items()}
