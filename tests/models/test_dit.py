"""DiT as a whole: its size, how it starts, what each part of it sees, and its precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from jax.extend.core import jaxprs_in_params

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.transformers import dit
from diffusion_jax.models.transformers.dit import DiT, positions

pytestmark = pytest.mark.slow

CLASSES, PATCH, FEATURES, LAYERS, OUT = 4, 2, 24, 2, 5
BATCH, HEIGHT, WIDTH, CHANNELS = 3, 4, 8, 2
LABELLED = {"label": LabelEmbedding(CLASSES + 1)}
TINY = {"patch": PATCH, "features": FEATURES, "layers": LAYERS, "heads": 2, "out_channels": OUT}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)
TIME = np.array([0, 400, 999])
LABEL = np.array([0, 1, CLASSES])


def shapes_of(model, x=X, time=TIME, cond=None):
    return jax.eval_shape(model.init, jax.random.key(0), x, time, cond)["params"]


def random_params(shapes):
    """Every weight at random: kernels of deviation fan_in^-1/2, biases near 0."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        return noise / np.sqrt(np.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 0.2 * noise

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def params():
    return random_params(shapes_of(DiT(**TINY, embed=LABELLED), cond={"label": LABEL}))


@pytest.fixture(scope="module")
def evaluate():
    """params, x, time, label -> output, compiled once a shape."""
    return jax.jit(
        lambda params, x=X, time=TIME, label=LABEL: DiT(**TINY, embed=LABELLED).apply(
            {"params": params}, x, time, {"label": label}
        )
    )


def difference(a, b):
    """The largest of each example."""
    return np.abs(np.asarray(a) - b).reshape(BATCH, -1).max(1)


# Size and start


@pytest.mark.parametrize(
    ("make", "patch", "expected"),
    [(dit.S, 2, 32_865_056), (dit.B, 2, 130_315_808), (dit.L, 2, 457_840_672), (dit.XL, 2, 674_834_720)],
    ids=["S/2", "B/2", "L/2", "XL/2"],
)
def test_published_numbers_of_parameters(make, patch, expected):
    """The paper's table 1 says 33, 130, 458 and 675 millions."""
    model = make(patch=patch, embed={"label": LabelEmbedding(1001)})
    leaves = jax.tree.leaves(shapes_of(model, np.zeros((1, 32, 32, 4)), np.zeros(1), {"label": np.zeros(1, int)}))
    assert sum(leaf.size for leaf in leaves) == expected
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_the_defaults_are_the_largest():
    assert DiT() == dit.XL(patch=2, out_channels=8)
    table = positions(16, 16, DiT().features)
    assert 674_834_720 + table.size == 675_129_632  # the official network counts it, and does not train it


def test_modules_have_predictable_names(params):
    blocks = {f"block_{i}" for i in range(LAYERS)}
    assert set(params) == {"patches", "time_embedding", "embed_label", "output", "output_modulation"} | blocks
    assert set(params["block_0"]) == {"modulation", "query", "key", "value", "out", "mlp_0", "mlp_1"}


def test_it_starts_as_published():
    """Exactly 0, and every kernel of its law, from one key.

    The largest of 576 uniform numbers is 5 % below the bound once in 7e12 times; the deviation of 576 normal ones
    is 15 % off once in 3e6. Another law would be: xavier's bound of query alone is 1.41 times that of all three.
    """
    model = DiT(**TINY)
    start = jax.jit(lambda key: model.init(key, X, TIME)["params"])(jax.random.key(0))
    np.testing.assert_array_equal(jax.jit(model.apply)({"params": start}, X, TIME), 0)
    kernels = {
        name: np.asarray(value)
        for name, value in traverse_util.flatten_dict(start, sep="/").items()
        if name.endswith("kernel") or np.any(value)  # biases start at 0
    }
    assert all(name.endswith("kernel") for name in kernels)
    closed = {name for name, value in kernels.items() if not value.any()}
    assert closed == {f"{name}/kernel" for name in ("output", "output_modulation")} | {
        f"block_{i}/modulation/kernel" for i in range(LAYERS)
    }
    for name, value in kernels.items():
        if name.startswith("time_embedding"):
            assert abs(value.std() / 0.02 - 1) < 0.15, name
        elif name not in closed | {"patches/kernel"}:
            fan_in, fan_out = value.shape
            if name.split("/")[1] in ("query", "key", "value"):
                fan_out *= 3  # one layer in the official network
            bound = np.sqrt(6 / (fan_in + fan_out))
            assert 0.95 * bound < np.abs(value).max() < bound * (1 + 1e-6), name


def test_patches_start_as_a_dense_layer_on_them():
    kernel = dit.patch_init(jax.random.key(1), (4, 4, 3, 16))
    bound = np.sqrt(6 / (4 * 4 * 3 + 16))
    assert 0.95 * bound < np.abs(kernel).max() < bound * (1 + 1e-6)


# Places


def test_positions_are_waves_of_the_column_then_of_the_row():
    table = positions(3, 5, 16).reshape(3, 5, 4, 4)  # row, column, wave, frequency
    place = np.arange(5)[:, None] * 10000.0 ** (-np.arange(4) / 4)
    for row in range(3):
        np.testing.assert_allclose(table[row, :, 0], np.sin(place), atol=1e-7)
        np.testing.assert_allclose(table[row, :, 1], np.cos(place), atol=1e-7)
    for column in range(5):
        np.testing.assert_allclose(table[:, column, 2], np.sin(place[:3]), atol=1e-7)
        np.testing.assert_allclose(table[:, column, 3], np.cos(place[:3]), atol=1e-7)


def test_a_token_ends_in_its_own_patch(params):
    """With the head's kernel at 0 its bias stands in every patch: row, column and channel in this order."""
    bias = np.arange(PATCH * PATCH * OUT, dtype=np.float32)
    head = {"kernel": jnp.zeros_like(params["output"]["kernel"]), "bias": bias}
    out = DiT(**TINY, embed=LABELLED).apply({"params": params | {"output": head}}, X, TIME, {"label": LABEL})
    expected = np.tile(bias.reshape(PATCH, PATCH, OUT), (HEIGHT // PATCH, WIDTH // PATCH, 1))
    np.testing.assert_array_equal(out, np.broadcast_to(expected, out.shape))


def test_only_attention_carries_from_patch_to_patch(params, evaluate):
    blind = params | {
        name: block | {"out": jax.tree.map(jnp.zeros_like, block["out"])}
        for name, block in params.items()
        if name.startswith("block")
    }
    for place in [(0, 0), (1, 5), (3, 2)]:
        changed = X.copy()
        changed[:, *place] += 1
        patch = tuple(slice(p // PATCH * PATCH, p // PATCH * PATCH + PATCH) for p in place)
        inside = np.zeros((HEIGHT, WIDTH), bool)
        inside[patch] = True
        effect = np.abs(evaluate(blind, changed) - evaluate(blind)).max(-1)
        assert effect[:, inside].min() > 1e-3
        np.testing.assert_array_equal(effect[:, ~inside], 0)
        assert np.abs(evaluate(params, changed) - evaluate(params)).max(-1).min() > 1e-4


def turned(params):
    """The weights that do to a picture turned over its diagonal what `params` do to it: patches are turned too,
    and so are features, since the first half of them tells the column and the second the row."""
    swap = np.roll(np.arange(FEATURES), FEATURES // 2)

    def columns(layer, parts=1):
        order = (swap + FEATURES * np.arange(parts)[:, None]).ravel()
        return {name: leaf[..., order] for name, leaf in layer.items()}

    def rows(layer):
        return layer | {"kernel": layer["kernel"][swap]}

    def head(leaf):
        return leaf.reshape(-1, PATCH, PATCH, OUT).swapaxes(1, 2).reshape(leaf.shape)

    def block(layers):
        read = {name: rows(layers[name]) for name in ("query", "key", "value", "mlp_0")}
        write = {name: columns(layers[name]) for name in ("out", "mlp_1")}
        return read | write | {"modulation": columns(layers["modulation"], 6)}

    patches = columns(params["patches"])
    return params | {
        "patches": patches | {"kernel": patches["kernel"].swapaxes(0, 1)},
        "output_modulation": columns(params["output_modulation"], 2),
        "output": jax.tree.map(head, rows(params["output"])),
        **{name: block(layers) for name, layers in params.items() if name.startswith("block")},
    }


def test_height_and_width_play_the_same_part(params, evaluate):
    out = evaluate(params)
    assert out.shape == (BATCH, HEIGHT, WIDTH, OUT)
    x = X.swapaxes(1, 2)
    np.testing.assert_allclose(evaluate(turned(params), x).swapaxes(1, 2), out, rtol=1e-4, atol=1e-4)
    # Controls: with the weights as they are it does not, nor with the same weights but for the features' halves.
    assert np.abs(evaluate(params, x).swapaxes(1, 2) - out).max() > 0.1
    alone = turned(params) | {"patches": params["patches"]}
    assert np.abs(evaluate(alone, x).swapaxes(1, 2) - out).max() > 0.1


# What it is told


def test_time_and_label_are_heard_by_their_own_example(params, evaluate):
    out = evaluate(params)
    np.testing.assert_array_equal(evaluate(params, time=TIME.astype(np.float32)), out)
    later = difference(evaluate(params, time=TIME + np.array([0, 1, 0])), out)
    assert later[1] > 1e-3
    np.testing.assert_array_equal(later[[0, 2]], 0)
    seen = [out]
    for label in range(CLASSES + 1):
        if label != LABEL[1]:
            seen.append(evaluate(params, label=np.array([LABEL[0], label, LABEL[2]])))
            for before in seen[:-1]:
                effect = difference(seen[-1], before)
                assert effect[1] > 1e-3
                np.testing.assert_array_equal(effect[[0, 2]], 0)


def test_an_example_does_not_see_its_neighbours(params, evaluate):
    order = np.array([0, 2, 1])
    assert difference(evaluate(params, X[order], TIME[order], LABEL[order]), evaluate(params))[0] == 0


def test_an_unknown_label_shows_at_once(params, evaluate):
    lost = np.isnan(evaluate(params, label=np.array([0, CLASSES + 1, 1]))).all((1, 2, 3))
    np.testing.assert_array_equal(lost, [False, True, False])


def test_it_may_be_told_the_time_alone(params):
    alone = {name: value for name, value in params.items() if name != "embed_label"}
    out = jax.jit(DiT(**TINY).apply)({"params": alone}, X, TIME)
    assert out.shape == (BATCH, HEIGHT, WIDTH, OUT)
    silent = {"embedding": jnp.zeros_like(params["embed_label"]["embedding"])}
    same = DiT(**TINY, embed=LABELLED).apply({"params": params | {"embed_label": silent}}, X, TIME, {"label": LABEL})
    np.testing.assert_allclose(out, same, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "size", "cond", "message"),
    [
        ({}, (4, 7), None, "images of 4x7: height and width must be multiples of 2"),
        ({"patch": 3}, (4, 6), None, "images of 4x6: height and width must be multiples of 3"),
        ({"heads": 5}, (4, 4), None, "24 features do not divide into 5 heads"),
        ({"features": 26}, (4, 4), None, "positions in 26 features: take a multiple of 4"),
        ({"embed": LABELLED}, (4, 4), None, "needs the condition 'label'; it was given none"),
        ({"embed": LABELLED}, (4, 4), {"label": LABEL, "hint": X}, "knows no condition 'hint'; it takes 'label'"),
        ({}, (4, 4), {"label": LABEL}, "knows no condition 'label'; it takes none"),
    ],
)
def test_unfit_input_is_named_in_one_line(options, size, cond, message):
    with pytest.raises(InputError, match=message) as error:
        shapes_of(DiT(**TINY | options), np.zeros((BATCH, *size, CHANNELS)), TIME, cond)
    assert "\n" not in str(error.value)


# Computation


def operations(jaxpr):
    """Every primitive in a jaxpr and in those nested in it, with the dtypes of its inputs."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name, {str(v.aval.dtype) for v in eqn.invars}
        for inner in jaxprs_in_params(eqn.params):
            yield from operations(inner)


def test_bfloat16_computes_where_it_should_and_stays_close(params, evaluate):
    model = DiT(**TINY, embed=LABELLED, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(model, cond={"label": LABEL}))} == {jnp.dtype("float32")}
    apply = jax.jit(lambda params: model.apply({"params": params}, X, TIME, {"label": LABEL}))
    used = list(operations(jax.make_jaxpr(apply)(params).jaxpr))
    assert "conv_general_dilated" not in {name for name, _ in used}  # patches are one product too
    products = [dtypes for name, dtypes in used if name == "dot_general"]
    assert products[:2] == [{"float32"}] * 2  # the time embedding
    assert products[2] == {"bfloat16"}  # the patches
    # Modulation, 4 + 2 of attention, 2 of the perceptron; all but q k^T once for CPUs and once for other devices.
    assert products[3:-2] == [{"bfloat16"}] * (2 * 8 + 1) * LAYERS
    assert products[-2:] == [{"float32"}] * 2  # the last layer and its modulation
    statistics = {"exp", "rsqrt", "sqrt", "reduce_sum", "reduce_max"}  # of the softmax and of normalisation
    assert all(dtypes == {"float32"} for name, dtypes in used if name in statistics)

    out, exact = apply(params), evaluate(params)
    assert out.dtype == exact.dtype == jnp.float32
    assert 1e-4 < np.linalg.norm(out - exact) / np.linalg.norm(exact) < 0.03


@pytest.fixture(scope="module")
def gradients(params):
    """params -> gradients of a projection of the output, of the plain network and with its blocks recomputed."""
    direction = np.random.default_rng(4).normal(size=(BATCH, HEIGHT, WIDTH, OUT)).astype(np.float32)

    def of(**options):
        model = DiT(**TINY, embed=LABELLED, **options)
        return jax.grad(lambda p: jnp.sum(direction * model.apply({"params": p}, X, TIME, {"label": LABEL})))

    return {"plain": of(), "recomputed": of(wrap=nn.remat)}


def test_every_parameter_has_a_gradient_and_recomputing_changes_none(params, gradients):
    """A shift of all keys leaves the softmax unchanged: only that bias has none."""
    plain, recomputed = (
        traverse_util.flatten_dict(jax.jit(gradients[way])(params), sep="/") for way in ("plain", "recomputed")
    )
    for name, gradient in plain.items():
        assert np.isfinite(gradient).all(), name
        assert np.linalg.norm(gradient) > 1e-3 or name.endswith("key/bias"), name
        np.testing.assert_allclose(recomputed[name], gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max() + 1e-5)


def test_recomputing_keeps_less(params, gradients):
    """As many blocks as are wrapped, and one attention more each: that of the backward pass."""
    count = {}
    for way, function in gradients.items():
        names = [name for name, _ in operations(jax.make_jaxpr(function)(params).jaxpr)]
        count[way] = (names.count("remat2") + names.count("checkpoint"), names.count("exp"))
    assert count["plain"][0] == 0
    assert count["recomputed"][0] >= LAYERS
    assert count["recomputed"][1] == count["plain"][1] + LAYERS


def test_attention_is_computed_as_the_network_says():
    seen = []

    def attend(query, key, value):
        seen.append(query.shape)
        return jax.nn.dot_product_attention(query, key, value)

    shapes_of(DiT(**TINY, attend=attend))
    assert seen == [(BATCH, HEIGHT * WIDTH // PATCH**2, 2, FEATURES // 2)] * LAYERS
