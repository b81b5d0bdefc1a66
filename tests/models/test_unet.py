"""The U-Net as a whole: its size, its symmetries, its inputs, its dropout and its precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.extend.core import jaxprs_in_params

from diffusion_jax.core.errors import InputError
from diffusion_jax.models import UNet

pytestmark = pytest.mark.slow

TINY = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_levels": (1,), "groups": 4}
BATCH = 3


def parameter_shapes(model, height=32, width=32):
    x, time = jnp.zeros((1, height, width, 3)), jnp.zeros((1,), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), x, time)["params"]


def random_params(model):
    """Every weight at random: kernels of deviation fan_in^-1/2, scales near 1, biases near 0."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        kind = path[-1].key
        if kind == "kernel":
            return noise / np.sqrt(np.prod(leaf.shape[:-1]))
        return 0.2 * noise + (kind == "scale")

    return jax.tree_util.tree_map_with_path(draw, parameter_shapes(model))


@pytest.fixture(scope="module")
def params():
    return random_params(UNet(**TINY))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(BATCH, 8, 12, 3)).astype(np.float32)
    return x, np.array([0, 400, 999])


@pytest.fixture(scope="module")
def evaluate():
    return jax.jit(lambda params, x, time: UNet(**TINY).apply({"params": params}, x, time))


@pytest.fixture(scope="module")
def drop():
    """params, x, time, keys -> output with dropout, jitted."""
    model = UNet(**TINY, dropout=0.5)
    return jax.jit(lambda params, x, time, keys: model.apply({"params": params}, x, time, dropout_keys=keys))


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(2), BATCH)


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        (UNet(), 32, 35_746_307),
        (UNet(multipliers=(1, 1, 2, 2, 4, 4), attention_levels=(4,)), 256, 113_673_219),
        (UNet(channels=192, multipliers=(1, 1, 2, 2, 4, 4), attention_levels=(4,)), 256, 255_677_955),
    ],
    ids=["CIFAR-10", "256x256", "256x256 large"],
)
def test_published_numbers_of_parameters(model, size, expected):
    leaves = jax.tree.leaves(parameter_shapes(model, size, size))
    assert sum(leaf.size for leaf in leaves) == expected
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_modules_have_predictable_names():
    assert set(parameter_shapes(UNet(**TINY))) == {
        "time_embedding",
        "input_conv",
        "down_0_block_0",
        "down_0_downsample",
        "down_1_block_0",
        "down_1_attention_0",
        "middle_block_0",
        "middle_attention",
        "middle_block_1",
        *(f"up_{level}_block_{i}" for level in (0, 1) for i in (0, 1)),
        "up_1_attention_0",
        "up_1_attention_1",
        "up_1_upsample",
        "output_norm",
        "output_conv",
    }


def test_height_and_width_play_the_same_part(params, batch, evaluate):
    """An 8x12 image turned over its diagonal, with kernels turned likewise, gives the output turned."""
    x, time = batch
    turned = jax.tree.map(lambda p: p.swapaxes(0, 1) if p.ndim == 4 else p, params)
    out = evaluate(params, x, time)
    assert out.shape == x.shape
    np.testing.assert_allclose(evaluate(turned, x.swapaxes(1, 2), time).swapaxes(1, 2), out, rtol=1e-4, atol=1e-4)
    # Control: with kernels as they are it does not.
    assert np.abs(evaluate(params, x.swapaxes(1, 2), time).swapaxes(1, 2) - out).max() > 0.1


def test_the_last_convolution_starts_at_all_but_zero(batch):
    """Uniform of variance 1e-10 / mean(fan in, fan out); the rest of the network is compiled away."""
    init = jax.jit(lambda key: UNet(**TINY).init(key, *batch)["params"]["output_conv"]["kernel"])
    kernel = np.abs(init(jax.random.key(0)))
    bound = np.sqrt(3 * 1e-10 / (9 * (8 + 3) / 2))
    assert 0.9 * bound < kernel.max() < bound * (1 + 1e-6)


def test_time_changes_the_output_and_may_be_a_float(params, batch, evaluate):
    x, time = batch
    out = evaluate(params, x, time)
    np.testing.assert_array_equal(evaluate(params, x, time.astype(np.float32)), out)
    shifted = evaluate(params, x, time + np.array([0, 1, 0]))
    np.testing.assert_array_equal(shifted[::2], out[::2])
    assert np.abs(shifted[1] - out[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "height", "width", "message"),
    [
        ({}, 32, 36, "images of 32x36: height and width must be multiples of 8"),
        ({}, 33, 32, "images of 33x32"),
        ({"channels": 100}, 32, 32, "100 channels do not divide into 32 groups"),
        ({"multipliers": (1, 3), "groups": 3}, 32, 32, "128 channels do not divide into 3 groups"),
        ({"blocks": (1, 2)}, 32, 32, r"blocks \(1, 2\): give one number, or 4"),
        ({"attention_levels": (4,)}, 32, 32, "attention at level 4: levels run from 0 to 3"),
        ({"dropout": 1.0}, 32, 32, "dropout 1.0"),
    ],
)
def test_unfit_input_is_named_in_one_line(options, height, width, message):
    with pytest.raises(InputError, match=message) as error:
        parameter_shapes(UNet(**options), height, width)
    assert "\n" not in str(error.value)


def test_dropout_of_an_example_does_not_see_its_neighbours(params, batch, drop, keys):
    x, time = batch
    out = drop(params, x, time, keys)
    # The same program with other neighbours: the same bits.
    order, strangers = np.array([0, 0, 1]), jax.random.split(jax.random.key(3), BATCH)
    neighbours = drop(params, x[order], time[order], strangers.at[0].set(keys[0]))
    np.testing.assert_array_equal(neighbours[0], out[0])
    # Another batch size is another program, so rounding may differ; one mask that did would show at 0.1.
    np.testing.assert_allclose(drop(params, x[:1], time[:1], keys[:1]), out[:1], rtol=1e-4, atol=1e-4)
    # Another key, another output.
    assert np.abs(neighbours[1] - out[0]).max() > 0.1


def test_evaluation_has_no_dropout(params, batch, evaluate, drop, keys):
    x, time = batch
    out = evaluate(params, x, time)
    np.testing.assert_array_equal(drop(params, x, time, None), out)
    rate_0 = jax.make_jaxpr(lambda: UNet(**TINY).apply({"params": params}, x, time, dropout_keys=keys))()
    no_keys = jax.make_jaxpr(lambda: UNet(**TINY).apply({"params": params}, x, time))()
    assert str(rate_0) == str(no_keys)
    assert np.abs(drop(params, x, time, keys) - out).max() > 0.1


def operations(jaxpr):
    """Every primitive in a jaxpr and in those nested in it, with the dtypes of its inputs."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name, {str(v.aval.dtype) for v in eqn.invars}
        for inner in jaxprs_in_params(eqn.params):
            yield from operations(inner)


def test_bfloat16_computes_where_it_should_and_stays_close(params, batch, evaluate):
    x, time = batch
    model = UNet(**TINY, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(parameter_shapes(model))} == {jnp.dtype("float32")}
    apply = jax.jit(lambda params, x, time: model.apply({"params": params}, x, time))

    used = list(operations(jax.make_jaxpr(apply)(params, x, time).jaxpr))
    convolutions = [dtypes for name, dtypes in used if name == "conv3x3"]
    assert convolutions[:-1] == [{"bfloat16"}] * (len(convolutions) - 1)
    assert convolutions[-1] == {"float32"}
    products = [dtypes for name, dtypes in used if name == "dot_general"]
    assert products[:2] == [{"float32"}] * 2  # the time embedding
    enlarging = 3 * (len(TINY["multipliers"]) - 1)  # which CPUs filter in float32
    assert products[2:].count({"bfloat16"}) == len(products) - 2 - enlarging
    assert products[2:].count({"float32"}) == enlarging
    statistics = {"exp", "rsqrt", "sqrt", "reduce_sum", "reduce_max"}  # of the softmax and of normalisation
    assert all(dtypes == {"float32"} for name, dtypes in used if name in statistics)

    out, exact = apply(params, x, time), evaluate(params, x, time)
    assert out.dtype == exact.dtype == jnp.float32
    error = np.linalg.norm(out - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03  # half a unit in the last place of bfloat16 is 0.2 %, over a dozen layers


def test_every_parameter_has_a_gradient(params, batch):
    """At random weights. A shift of all keys leaves the softmax unchanged: only that bias has none."""
    x, time = batch
    direction = np.random.default_rng(4).normal(size=x.shape).astype(np.float32)

    def project(params):
        return jnp.sum(direction * UNet(**TINY).apply({"params": params}, x, time))

    gradients = traverse_util.flatten_dict(jax.jit(jax.grad(project))(params), sep="/")
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        if not name.endswith("key/bias"):
            assert np.linalg.norm(gradient) > 1e-3, name
