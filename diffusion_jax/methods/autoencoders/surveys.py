"""What is measured of a whole set of examples: errors, rates, how many numbers of a code are used."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from diffusion_jax.autoencoding import quantizers
from diffusion_jax.autoencoding.codes import reconstructed, total
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import mean_over_entries
from diffusion_jax.core.protocols import Coder, Decode, Encode, Spoil
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
