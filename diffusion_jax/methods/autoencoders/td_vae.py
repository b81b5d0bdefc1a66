"""TD-VAE (Gregor et al. 2019): a model of sequences that believes, jumps, and rolls out what follows."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import sequential
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import SampleCondition, Source
from diffusion_jax.data import conditions, views
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.methods.autoencoders import surveys
from diffusion_jax.methods.autoencoders.compose import some
from diffusion_jax.methods.compose import base_config, direct, of_batch
from diffusion_jax.models.autoencoders.recurrent import BernoulliDecoder, GaussianDecoder, Recurrent
from diffusion_jax.training.averages import named
from diffusion_jax.training.experiment import (
    Data,
    Experiment,
    Measures,
    Optimization,
    SampleRequest,
    Sampling,
    Survey,
    Task,
)
from diffusion_jax.training.optimizers import adam

WIDTH = values.Whole(1, 65_536)
Shown: TypeAlias = Callable[[Any, jax.Array], jax.Array]  # `(p(x | z), keys [B]) -> x [B, ...]`


def default_config() -> Config:
    """The values for MNIST, of the paper's appendix where it says them and of its reimplementations where not."""
    config = base_config()
    config.data.length = values.count(20, "entries of a sequence", 4096, least=1)
    config.data.known = values.count(6, "first entries that a rollout is told", 4095, zero="a rollout from nothing")
    config.model = Config(
        seen=values.listed((784, 784), "features of the layers that see an entry of a sequence", WIDTH, most=16),
        belief=values.count(50, "features of the recurrent network, whose output is the belief", 16_384, least=1),
        layers=values.listed((8, 8), "numbers of each layer of a state, the highest first", WIDTH, 1, 16),
        hidden=values.count(50, "features of a D block", 16_384, least=1),
        decoder=values.listed((200, 200), "features of the decoder's hidden layers", WIDTH, most=16),
        longest_jump=values.count(4, "longest jump of training, in entries of a sequence", 4096, least=1),
    )
    config.train.jumps = values.count(1, "jumps in each sequence of a batch", 4096, least=1)
    config.train.batch_size = 512
    config.train.steps = 100_000
    config.train.learning_rate = 5e-4
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.999
    config.log.samples = 16
    return config


def config_digits() -> Config:
    """Values for 8x8 digits that move: minutes on two CPU cores."""
    config = default_config()
    config.data.threads = 1
    config.model.seen = (128,)
    config.model.belief = 100
    config.model.hidden = 100
    config.model.decoder = (128,)
    config.train.jumps = 4
    config.train.batch_size = 64
    config.train.steps = 8000
    config.train.steps_per_call = 10
    config.train.learning_rate = 3e-3
    config.train.decay_steps = 8000
    config.train.clip_norm = 10.0
    config.log.every = 500
    config.log.sample_every = 5000
    return config


def config_series() -> Config:
    """Values for series of a linear-Gaussian model (`data.sequences.turning`)."""
    config = config_digits()
    config.model.seen = ()
    config.model.belief = 32
    config.model.layers = (4,)
    config.model.hidden = 32
    config.model.decoder = ()
    config.model.longest_jump = 2
    config.train.jumps = 8
    config.train.batch_size = 128
    config.train.steps = 4000
    config.train.learning_rate = 5e-3
    config.train.decay_steps = 4000
    config.log.sample_every = 2000
    return config


def frames(config: ConfigDict, source: Source, shape: tuple[int, int, int]) -> Data:
    """Sequences of images, 0 and 1: what is above half of the lightest is 1.

    Args:
      config: values, as `default_config` names them.
      source: `split -> source` of {"frames": uint8 [T, H, W, C]} (`data.sequences.moving`), T `config.data.length`.
      shape: of an image, [H, W, C].
    """

    def clean(batch):
        return (batch["frames"] > 127).astype(jnp.float32)

    data = _sequences(config, source, "frames", jnp.uint8, shape, clean, views.sequences())
    return data._replace(sample_condition=_of_pixels(data.sample_condition))


def series(config: ConfigDict, source: Source, numbers: int) -> Data:
    """Series as they are: `split -> source` of {"series": float32 [T, numbers]}, T `config.data.length`."""
    return _sequences(config, source, "series", jnp.float32, (numbers,), itemgetter("series"), views.series())


def _sequences(config, source, name, dtype, shape, clean, view):
    length, known = config.data.length, config.data.known
    if known >= length:
        raise InputError(f"{known} known entries of {length} leave none to draw; make data.known less")
    full = (length, *shape)
    data = Data(source, {name: jax.ShapeDtypeStruct(full, dtype)}, clean, full, view)
    told = conditions.arrays(lambda num: {"known": some(data, num)[:, :known]}, known=(None, *shape))
    return data._replace(sample_condition=_checked(told, length))


def _checked(told: SampleCondition, length: int) -> SampleCondition:
    """`told`, of fewer entries than `length`."""

    def sample_condition(num, given):
        (cond,) = told(num, given)
        if cond["known"].shape[1] >= length:
            raise InputError(f"known has {cond['known'].shape[1]} entries; give fewer than {length}, what is drawn")
        return (cond,)

    return sample_condition


def _of_pixels(told: SampleCondition) -> SampleCondition:
    """`told`, of pixels in [0, 1]."""

    def sample_condition(num, given):
        (cond,) = told(num, given)
        low, high = (of(cond["known"], initial=0.0) for of in (np.min, np.max))
        if low < 0 or high > 1:
            raise InputError(f"known runs from {low:g} to {high:g}; give pixels in 0 to 1")
        return (cond,)

    return sample_condition


def mean(law: Any, keys: jax.Array) -> jax.Array:
    """Entries as their means: the images that the paper shows, without the noise of single pixels."""
    return law.mean


def build_frames(
    config: ConfigDict, data: Data, cell: Callable[[int], nn.RNNCellBase] = nn.OptimizedLSTMCell
) -> Experiment:
    """TD-VAE on `frames`, with a Bernoulli decoder; `cell` is the recurrent network's."""
    return build(config, data, cell(config.model.belief), BernoulliDecoder, mean)


def build_series(config: ConfigDict, data: Data, cell: Callable[[int], nn.RNNCellBase] = nn.GRUCell) -> Experiment:
    """TD-VAE on `series`, with a Gaussian decoder; `cell` is the recurrent network's."""
    return build(config, data, cell(config.model.belief), GaussianDecoder, draw)


def build(
    config: ConfigDict, data: Data, cell: nn.RNNCellBase, decoder: Callable[..., nn.Module], shown: Shown
) -> Experiment:
    """TD-VAE as an experiment.

    Its sampler "rollout" is told the first entries of sequences, "known", by default of those of the test split, and
    draws the others. The sampler "prior" is told nothing and draws all of them. Both return whole sequences.

    Args:
      config: values, as `default_config` names them.
      data: x0 [B, T, ...], with "known" as the condition of samples (`frames`, `series`).
      cell: of the recurrent network.
      decoder: `(sizes of its hidden layers, shape of an entry) -> module`, from a state to p(x | z).
      shown: how samples are made of p(x | z): `mean`, or `distributions.draw`.
    """
    length, *shape = data.shape
    if config.model.longest_jump > length:
        raise InputError(
            f"no jump of {config.model.longest_jump} fits into a sequence of {length}; "
            "make model.longest_jump less, or data.length more"
        )
    model = Recurrent(
        cell,
        decoder(tuple(config.model.decoder), tuple(shape)),
        tuple(config.model.layers),
        config.model.hidden,
        tuple(config.model.seen),
        config.model.longest_jump,
    )
    parts = of_network(model)

    def follow(params, keys, known):
        num = length - known.shape[1]
        law = sequential.rollout(parts, params, rng.each(keys, 0), known, num)
        return jnp.concatenate([known, shown(law, rng.each(keys, 1))], axis=1)

    def from_nothing(params, keys):
        return follow(params, keys, jnp.zeros((len(keys), 0, *shape)))

    rollout = direct(lambda params, keys, cond: follow(params, keys, cond["known"]))
    train = config.train
    optimizer = adam(train)
    loss = sequential.loss(parts, 1, config.model.longest_jump, train.jumps)
    return Experiment(
        data,
        Task(
            lambda key: model.init(key, jnp.zeros((1, *data.shape)))["params"],
            of_batch(loss, data),
            time_sampling.none(),
        ),
        Optimization(optimizer, train.ema_decay, named(train.ema_decays, train.ema_profiles)),
        Sampling(
            {"rollout": rollout, "prior": direct(from_nothing)},
            lambda batch: rollout(SampleRequest(batch)),
            told={"prior": conditions.nothing},
        ),
        Measures({"jump1": partial(_jump1, parts)}, survey=_survey(parts)),
        parts,
    )


def of_network(model: Recurrent) -> sequential.StateSpace:
    """The networks as the parts of the bound."""

    def call(name, *given):
        return lambda params, *rest: model.apply({"params": params}, *given, *rest, method=name)

    def law(name, params, *given):
        return lambda above: model.apply({"params": params}, above, *given, method=name)

    return sequential.StateSpace(
        len(model.layers),
        call("summary"),
        partial(law, "belief"),
        lambda params, z2, b1, b2, jump: law("smoothing", params, z2, b1, jump),
        partial(law, "transition"),
        call("decode"),
    )


def _jump1(parts, steps):
    if steps is not None:
        raise InputError(f"jump1 has a step an entry, and no {steps}; leave --steps out")
    return sequential.step_by_step(parts)


def _survey(parts: sequential.StateSpace) -> Survey:
    """The bound by jumps of 1 and its two parts, nats an entry of the sequence."""
    bound = sequential.step_by_step(parts)

    def each(params, keys, x):
        found = bound(params, keys, x)
        nats = math.log(2) * math.prod(x.shape[2:])
        return {f"{name}, nats a frame": term * nats for name, term in found._asdict().items()}

    def summary(found: Mapping[str, Any]) -> dict[str, float]:
        return {name.replace("total", "jump 1"): mean for name, mean in surveys.means(found).items()}

    return Survey(each, summary)
