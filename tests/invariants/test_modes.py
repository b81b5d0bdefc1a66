"""Types and modes that a user's program may be in: every sampler and every network works in each of them.

Faults of this kind show when a program is traced, so nothing is compiled but where numbers are compared.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import inpainting, parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.samplers import dpm
from diffusion_jax.models import AddedKeyUNet, ADMUNet, DiT, GatedPixelCNN, PixelSNAIL, TextUNet, UNet
from diffusion_jax.models.blocks.conditioning import LabelEmbedding, TokensEmbedding, VectorEmbedding
from diffusion_jax.models.mlp import MLP
from diffusion_jax.models.transformers.sequence import SequenceTransformer
from diffusion_jax.models.unets.adm import heads_of_width
from diffusion_jax.models.unets.ncsnpp import NCSNpp

pytestmark = pytest.mark.slow

SCHEDULE = schedules.vp_linear()
PROCESS = processes.gaussian(SCHEDULE)
TIMES = timesteps.log_snr(SCHEDULE, 5, first=0.99)
SHAPE = (2, 2, 1)

SAMPLERS = {
    "ancestral": samplers.ancestral(PROCESS),
    "annealed_langevin": samplers.annealed_langevin(SCHEDULE, 2, 1e-5),
    "churned": samplers.churned(SCHEDULE, samplers.euler(SCHEDULE), s_churn=1.0),
    "ddim": samplers.ddim(SCHEDULE, 0.5),
    "corrector_predictor": samplers.corrector_predictor(SCHEDULE, samplers.ancestral(PROCESS)),
    "deis": samplers.deis(SCHEDULE, samplers.at_most(3)),
    "dpm_2": samplers.dpm_2(SCHEDULE),
    "dpm_adaptive": samplers.dpm_adaptive(SCHEDULE),
    "dpm_fast": samplers.dpm_fast(SCHEDULE, 10, 0.5),
    "dpm_multistep": samplers.dpm_multistep(SCHEDULE, dpm.NOISE, samplers.at_most(3)),
    "dpm_singlestep": samplers.dpm_singlestep(SCHEDULE, dpm.NOISE, samplers.cycles(3)),
    "dpmpp_2s": samplers.dpmpp_2s(SCHEDULE),
    "dpmpp_sde": samplers.dpmpp_sde(SCHEDULE),
    "dpmpp_3m_sde": samplers.dpmpp_3m_sde(SCHEDULE),
    "jump": samplers.jump(SCHEDULE),
    "lms": samplers.lms(SCHEDULE),
    "unipc": samplers.unipc(SCHEDULE, samplers.at_most(3)),
    "dpmpp_2m": samplers.dpmpp_2m(SCHEDULE),
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde(SCHEDULE),
    "edm": samplers.edm(SCHEDULE, s_churn=1.0),
    "euler": samplers.euler(SCHEDULE),
    "euler_maruyama": samplers.euler_maruyama(SCHEDULE),
    "heun": samplers.heun(SCHEDULE),
    "plms": samplers.plms(SCHEDULE),
    "pndm": samplers.pndm(SCHEDULE),
    "predictor_corrector": samplers.predictor_corrector(SCHEDULE, samplers.ancestral(PROCESS)),
}
# Every other function of the package that is exported is no sampler of numbers.
OTHERS = {
    *(
        "at_most",
        "bh1",
        "bh2",
        "breaking",
        "cycles",
        "each_its_own",
        "ended",
        "film",
        "in_turn",
        "invert",
        "make_sample_fn",
    ),
    *("on_mean", "reporting", "solve", "positions"),  # of tokens: tests/diffusion/samplers/test_positions.py
}
TIME = parameterizations.thousandths


def of_spans(parameterization):
    """For `jump` as for all others: a time is a span too."""
    return parameterizations.flow_map(parameterization, TIME)


HALF = of_spans(parameterizations.x0(TIME))
NETWORKS = {
    "x0 in bfloat16": (HALF, jnp.bfloat16),
    "x0 in float16": (HALF, jnp.float16),
    "v in bfloat16": (of_spans(parameterizations.v(SCHEDULE, TIME)), jnp.bfloat16),
}


def denoise(x, t):
    return HALF.read(0.5 * x, x, t)


def sample_fn(sampler, parameterization=HALF, dtype=jnp.float32, shape=SHAPE, apply=None, **options):
    apply = apply or (lambda params, x, t: (params * x).astype(dtype))
    return samplers.make_sample_fn(apply, parameterization, PROCESS, sampler, TIMES, 8, shape, **options)


def traced(sample_fn, *arguments):
    return jax.eval_shape(sample_fn, jnp.float32(0.5), rng.root(0), *arguments)


def test_every_sampler_is_here():
    exported = {name for name, value in vars(samplers).items() if inspect.isfunction(value)}
    assert exported == set(SAMPLERS) | OTHERS


@pytest.mark.parametrize("name", SAMPLERS)
def test_networks_of_half_precision(name):
    for parameterization, dtype in NETWORKS.values():
        found = traced(sample_fn(SAMPLERS[name], parameterization, dtype))
        assert (found.shape, found.dtype) == ((8, *SHAPE), jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", SAMPLERS)
def test_data_of_half_precision_is_walked_in_float32(name, dtype):
    seen = []

    def looking(x, t):
        seen.append(x.dtype)
        return denoise(x, t)

    def walk(x):
        keys = rng.per_example(rng.root(0), jnp.arange(4))
        parts = SAMPLERS[name], TIMES, looking, x, keys
        return samplers.solve(*parts), samplers.film(*parts, frames=2)

    solved, (filmed, pictures) = jax.eval_shape(walk, jax.ShapeDtypeStruct((4, *SHAPE), dtype))
    assert {solved.dtype, filmed.dtype, pictures.dtype} == {jnp.dtype(dtype)}
    assert set(seen) == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", SAMPLERS)
def test_float32_stays_float32_where_doubles_are_enabled(name, x64):
    def walk(x):
        keys = rng.per_example(rng.root(0), jnp.arange(4))
        return samplers.solve(SAMPLERS[name], TIMES, denoise, x, keys)

    for dtype in (jnp.float32, jnp.float64):
        assert jax.eval_shape(walk, jax.ShapeDtypeStruct((4, *SHAPE), dtype)).dtype == dtype
    assert traced(sample_fn(SAMPLERS[name])).dtype == jnp.float64  # noise as JAX draws it there


@pytest.mark.parametrize("name", SAMPLERS)
def test_rank_promotion_may_be_forbidden(name):
    with jax.numpy_rank_promotion("raise"):
        assert traced(sample_fn(SAMPLERS[name])).shape == (8, *SHAPE)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_mesh_of_explicit_axes(name):
    mesh = jax.make_mesh((8,), ("data",))
    keys = jax.device_put(rng.per_example(rng.root(0), jnp.arange(8)), NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(jnp.float32(0.5), NamedSharding(mesh, PartitionSpec()))
    drawn = jax.jit(sample_fn(SAMPLERS[name]))
    assert drawn.trace(params, keys).out_info.shape == (8, *SHAPE)
    with jax.set_mesh(mesh):
        assert drawn.trace(0.5, rng.root(0)).out_info.shape == (8, *SHAPE)


def test_a_mesh_changes_no_image():
    mesh = jax.make_mesh((8,), ("data",))
    keys = rng.per_example(rng.root(0), jnp.arange(8))
    placed = jax.device_put(keys, NamedSharding(mesh, PartitionSpec("data")))
    drawn = jax.jit(sample_fn(SAMPLERS["dpmpp_2m_sde"]))
    np.testing.assert_array_equal(drawn(0.5, placed), drawn(0.5, keys))


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_keys_of_another_kind_are_refused_by_name(kind):
    drawn = sample_fn(SAMPLERS["euler"])
    for key in (jax.random.key(0, impl=kind), jax.random.key_data(jax.random.key(0, impl=kind))):
        with pytest.raises(InputError, match="threefry"):
            jax.eval_shape(drawn, 0.5, key)
    with jax.default_prng_impl(kind):  # the root of all commands, and legacy keys, are threefry keys nevertheless
        assert jax.eval_shape(drawn, 0.5, rng.root(0)).shape == (8, *SHAPE)
        assert jax.eval_shape(drawn, 0.5, jnp.zeros(2, jnp.uint32)).shape == (8, *SHAPE)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_network_that_answers_something_else_is_refused_in_one_line(name):
    two = lambda params, x, t: jnp.concatenate([x, x], -1)  # noqa: E731
    for shape, apply in (
        (SHAPE, lambda params, x, t: (x, x)),
        (SHAPE, lambda params, x, t: {"sample": x}),
        (SHAPE, two),  # broadcasts against one channel
        ((2, 2, 3), two),  # and does not against three
        (SHAPE, lambda params, x, t: x[:, :1]),
    ):
        for parameterization in (HALF, of_spans(parameterizations.eps(SCHEDULE, TIME))):
            with pytest.raises(InputError, match=r"network"):
                traced(sample_fn(SAMPLERS[name], parameterization, shape=shape, apply=apply))


def test_inpainting_in_every_type(x64):
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        run = inpainting.repaint(SCHEDULE, jnp.zeros((8, *SHAPE), dtype), jnp.ones(SHAPE), jump=2, resamplings=2)
        keys = rng.per_example(rng.root(0), jnp.arange(8))
        assert run(SAMPLERS["euler"], TIMES, denoise, jnp.zeros((8, *SHAPE), dtype), keys).dtype == dtype


SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_levels": (1,), "groups": 4, "dropout": 0.5}
TOKENS = jax.ShapeDtypeStruct((2, 4, 4, 2), jnp.int32)
IMAGE, TOLD = jax.ShapeDtypeStruct((2, 8, 8, 2), jnp.float32), {"label": np.zeros(2, np.int32)}
LABELS = {"label": LabelEmbedding(4)}
MODELS = {
    "UNet": (UNet(**SMALL, out_channels=2, embed=LABELS), IMAGE, TOLD),
    "ADMUNet": (ADMUNet(**SMALL, out_channels=2, heads=heads_of_width(4), embed=LABELS), IMAGE, TOLD),
    "TextUNet": (
        TextUNet(**SMALL, out_channels=2, heads=heads_of_width(4)),
        IMAGE,
        {"tokens": np.zeros((2, 5, 6), np.float32)},
    ),
    "AddedKeyUNet": (
        AddedKeyUNet(
            **SMALL,
            out_channels=2,
            heads=heads_of_width(4),
            token_groups=2,
            token_features=4,
            embed={"tokens": TokensEmbedding(2), "vector": VectorEmbedding()},
        ),
        IMAGE,
        {"tokens": np.zeros((2, 5, 6), np.float32), "token_mask": np.ones((2, 5), bool), "vector": np.zeros((2, 3))},
    ),
    "NCSNpp": (NCSNpp(**SMALL, out_channels=2), IMAGE, {}),
    "DiT": (DiT(features=16, layers=1, heads=2, out_channels=2, embed=LABELS), IMAGE, TOLD),
    "MLP": (MLP(features=8, layers=2), jax.ShapeDtypeStruct((2, 2), jnp.float32), None),
    "SequenceTransformer": (
        SequenceTransformer(5, features=8, layers=1, heads=2),
        jax.ShapeDtypeStruct((2, 6), jnp.int32),
        None,
    ),
    "GatedPixelCNN": (GatedPixelCNN(5, 8, layers=2, embed=LABELS), TOKENS, TOLD),
    "PixelSNAIL": (PixelSNAIL(5, 8, blocks=1, repeats=1, embed=LABELS), TOKENS, TOLD),
}


def shapes_of(name, forwards=False):
    """Parameters, output and gradients, traced; also those of a derivative forwards, which MeanFlow takes."""
    model, x, cond = MODELS[name]
    told = (np.zeros(2, np.float32),) if cond is None else (np.zeros(2, np.float32), cond)
    params = jax.eval_shape(lambda x: model.init(rng.root(0), x, *told), x)["params"]
    output = jax.eval_shape(lambda params, x: model.apply({"params": params}, x, *told), params, x)

    def total(params, x):
        return jnp.sum(model.apply({"params": params}, x, *told))

    slopes = jax.eval_shape(jax.grad(total), params, x)
    if forwards and x.dtype == jnp.float32:
        twice = jax.grad(lambda params, x: jax.jvp(partial(total, params), (x,), (x,))[1])
        slopes = slopes, jax.eval_shape(twice, params, x)
    return params, output, slopes


@pytest.mark.parametrize("name", MODELS)
def test_networks_keep_float32_where_doubles_are_enabled(name, x64):
    assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes_of(name, forwards=True))} == {"float32"}


@pytest.mark.parametrize("name", MODELS)
def test_networks_where_rank_promotion_is_forbidden(name):
    with jax.numpy_rank_promotion("raise"):
        shapes_of(name)
