"""The networks for points, for tokens and for labelled images: what they see, and what they must not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.mlp import MLP
from diffusion_jax.models.tokens import TokenUNet
from diffusion_jax.models.transformers.sequence import SequenceTransformer
from diffusion_jax.models.unets.labelled import LabelledUNet
from diffusion_jax.models.unets.unet import UNet

BATCH = 3
UNET = UNet(channels=4, multipliers=(1,), blocks=1, attention_levels=(), groups=2, out_channels=2, dropout=0.5)
VOCAB, CLASSES = 5, 3
RNG = np.random.default_rng(0)
X = {
    "mlp": RNG.normal(size=(BATCH, 2)).astype(np.float32),
    "sequence": RNG.integers(0, VOCAB - 1, (BATCH, 2, 3)),
    "tokens": RNG.integers(0, VOCAB - 1, (BATCH, 4, 4, 1)),
    "labelled": {
        "image": RNG.normal(size=(BATCH, 4, 4, 1)).astype(np.float32),
        "label": RNG.integers(0, CLASSES, BATCH),
    },
}
TIME = np.array([0.5, 400.0, 999.0], np.float32)
KEYS = jax.random.split(jax.random.key(2), BATCH)


class Case:
    """A network at random weights and its functions, compiled when first called."""

    def __init__(self, name, model):
        self.model, self.x = model, X[name]
        self.shapes = jax.eval_shape(model.init, jax.random.key(0), self.x, TIME)["params"]
        self.params = jax.tree_util.tree_map_with_path(draw, self.shapes)
        self.apply = jax.jit(lambda x, time: model.apply({"params": self.params}, x, time))
        self.drop = jax.jit(lambda x, time, keys: model.apply({"params": self.params}, x, time, dropout_keys=keys))


def draw(path, leaf):
    """Kernels of deviation fan_in^-1/2, scales near 1, biases near 0: nothing is switched off, as at the start."""
    noise = np.random.default_rng(len(str(path))).normal(size=leaf.shape).astype(np.float32)
    if path[-1].key == "kernel":
        return noise / np.sqrt(np.prod(leaf.shape[:-1]))
    return 0.2 * noise + (path[-1].key == "scale")


@pytest.fixture(scope="module")
def cases():
    models = {
        "mlp": MLP(features=8, layers=2),
        "sequence": SequenceTransformer(VOCAB, features=8, layers=1, heads=2, dropout=0.5),
        "tokens": TokenUNet(UNET, VOCAB, features=4),
        "labelled": LabelledUNet(UNET, CLASSES, features=4),
    }
    return {name: Case(name, model) for name, model in models.items()}


@pytest.fixture(params=list(X))
def case(request, cases):
    return cases[request.param]


def difference(a, b):
    """The largest, for each example of the batch, over all leaves."""
    each = jax.tree.map(lambda u, v: np.abs(np.asarray(u) - v).reshape(len(u), -1).max(1), a, b)
    return np.max(jax.tree.leaves(each), axis=0)


def test_shapes_and_types(cases):
    shapes = {name: jax.tree.map(np.shape, case.apply(case.x, TIME)) for name, case in cases.items()}
    assert shapes["mlp"] == (BATCH, 2)
    assert shapes["sequence"] == (BATCH, 2, 3, VOCAB)
    assert shapes["labelled"] == {"image": (BATCH, 4, 4, 2), "label": (BATCH, CLASSES + 1)}
    for case in cases.values():
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(case.apply(case.x, TIME))} == {"float32"}
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(case.shapes)} == {"float32"}


def test_time_is_heard_to_a_thousandth_by_its_own_example(case):
    out = case.apply(case.x, TIME)
    shifted = difference(case.apply(case.x, TIME + np.array([0, 1, 0], np.float32)), out)
    assert shifted[1] > 1e-3
    np.testing.assert_array_equal(shifted[[0, 2]], 0)


def test_an_example_does_not_see_its_neighbours(case):
    order, strangers = np.array([0, 2, 1]), jax.random.split(jax.random.key(3), BATCH).at[0].set(KEYS[0])
    x = jax.tree.map(lambda leaf: leaf[order], case.x)
    assert difference(case.apply(x, TIME[order]), case.apply(case.x, TIME))[0] == 0
    assert difference(case.drop(x, TIME[order], strangers), case.drop(case.x, TIME, KEYS))[0] == 0


@pytest.mark.parametrize("name", ["sequence", "labelled"])
def test_dropout_follows_the_keys(cases, name):
    case = cases[name]
    out = case.drop(case.x, TIME, KEYS)
    assert difference(case.drop(case.x, TIME, KEYS), out).max() == 0
    assert difference(case.drop(case.x, TIME, KEYS.at[1].set(KEYS[0])), out)[1] > 1e-2
    assert difference(case.apply(case.x, TIME), out).min() > 1e-2


@pytest.mark.parametrize("name", ["mlp", "sequence"])
def test_every_parameter_has_a_gradient_and_all_is_finite(cases, name):
    """A shift of all keys leaves the softmax unchanged: only that bias has none."""
    case = cases[name]

    def project(params):
        out = case.model.apply({"params": params}, case.x, TIME)
        weights = np.random.default_rng(1)
        return sum(jnp.sum(leaf * weights.normal(size=leaf.shape)) for leaf in jax.tree.leaves(out))

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(project))(case.params)):
        parameter = jax.tree_util.keystr(path)
        assert np.isfinite(gradient).all(), parameter
        assert np.linalg.norm(gradient) > 1e-3 or "'key']['bias'" in parameter, parameter


@pytest.mark.parametrize(("name", "closed"), [("mlp", []), ("sequence", ["block_0", "output_modulation"])])
def test_the_last_layer_starts_at_all_but_zero_and_every_gate_at_zero(cases, name, closed):
    """Only these kernels are computed; the rest of the network is compiled away."""
    case = cases[name]

    def kernels(key):
        params = case.model.init(key, case.x, TIME)["params"]
        gates = [params[layer].get("modulation", params[layer])["kernel"] for layer in closed]
        return params["output"]["kernel"], gates

    output, gates = jax.jit(kernels)(jax.random.key(0))
    assert 0 < np.abs(output).max() < 1e-4
    assert all((gate == 0).all() for gate in gates)


# Points


def test_points_far_out_are_told_apart_from_near_ones(cases):
    """Normalised layers would see the direction alone."""
    apply, x = cases["mlp"].apply, cases["mlp"].x
    near, far = apply(x, TIME), apply(100 * x, TIME)
    assert np.linalg.norm(far, axis=1).min() > 10 * np.linalg.norm(near, axis=1).max()


def test_points_must_be_vectors():
    with pytest.raises(InputError, match=r"an MLP for x of shape \(2, 3, 4\): make it \[batch, numbers\]"):
        jax.eval_shape(MLP(8, 1).init, jax.random.key(0), jnp.zeros((2, 3, 4)), jnp.zeros(2))


# Tokens


def test_every_token_is_told_what_every_other_is(cases):
    """Both ways, and of its own: no causal mask, no dead place."""
    apply, x = cases["sequence"].apply, cases["sequence"].x
    out = apply(x, TIME)
    for place in np.ndindex(x.shape[1:]):
        changed = x.copy()
        changed[0][place] = VOCAB - 1
        effect = np.abs(apply(changed, TIME) - out).max(-1)
        assert effect[0].min() > 1e-4
        np.testing.assert_array_equal(effect[1:], 0)


def test_positions_and_neighbours_tell_places_apart_and_nothing_else(cases):
    """Without neighbours: with the table of positions turned as the tokens are, the output is turned."""
    case = cases["sequence"]
    alone = case.params | {"neighbours": jax.tree.map(jnp.zeros_like, case.params["neighbours"])}
    apply = jax.jit(lambda params, x: case.model.apply({"params": params}, x, TIME))
    order = np.array([3, 0, 5, 1, 4, 2])

    def turned(x, *rest):
        return np.asarray(x).reshape(BATCH, 6, *rest)[:, order].reshape(BATCH, 2, 3, *rest)

    def apart(params, table):
        both = apply(params | {"positions": params["positions"][table]}, turned(case.x))
        return np.abs(both - turned(apply(params, case.x), VOCAB)).max()

    assert apart(alone, order) < 1e-5
    assert apart(alone, np.arange(6)) > 0.01
    assert apart(case.params, order) > 0.01


def test_an_unknown_token_shows_at_once(cases):
    x = cases["sequence"].x.copy()
    x[1, 0, 0] = VOCAB
    lost = np.isnan(cases["sequence"].apply(x, TIME)).all((1, 2, 3))
    np.testing.assert_array_equal(lost, [False, True, False])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 8, "heads": 3}, "8 features do not divide into 3 heads; take features as a multiple of 3"),
        ({"features": 9, "heads": 3}, "a time embedding of 9 features"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_unfit_transformers_are_named_in_one_line(options, message):
    model = SequenceTransformer(VOCAB, layers=1, **options)
    with pytest.raises(InputError, match=message) as error:
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 6), int), jnp.zeros(2))
    assert "\n" not in str(error.value)


def test_bfloat16_stays_close(cases):
    case = cases["sequence"]
    model = case.model.clone(dtype=jnp.bfloat16)
    out = jax.jit(lambda x: model.apply({"params": case.params}, x, TIME))(case.x)
    exact = case.apply(case.x, TIME)
    assert out.dtype == jnp.float32
    assert 1e-4 < np.linalg.norm(out - exact) / np.linalg.norm(exact) < 0.05


# Labelled images


def test_image_and_label_hear_each_other(cases):
    apply, x = cases["labelled"].apply, cases["labelled"].x
    out = apply(x, TIME)
    seen = [out]
    for step in range(1, CLASSES + 1):  # every other label, the mask among them
        label = x["label"].copy()
        label[0] = (label[0] + step) % (CLASSES + 1)
        seen.append(apply(x | {"label": label}, TIME))
        for name in ("image", "label"):
            for before in seen[:-1]:
                effect = difference(seen[-1][name], before[name])
                assert effect[0] > 1e-3
                np.testing.assert_array_equal(effect[1:], 0)
    other = apply(x | {"image": x["image"] + np.eye(4, dtype=np.float32)[..., None]}, TIME)
    assert difference(other["image"], out["image"]).min() > 1e-2
    assert difference(other["label"], out["label"]).min() > 1e-3


def test_errors_of_the_unet_come_through():
    model = LabelledUNet(UNet(channels=8, multipliers=(1,), groups=3), CLASSES)
    with pytest.raises(InputError, match="8 channels do not divide into 3 groups"):
        jax.eval_shape(model.init, jax.random.key(0), X["labelled"], TIME)
