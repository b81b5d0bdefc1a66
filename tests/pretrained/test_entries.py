"""What turns published weights into parameters: exact both ways, in one pass, and it says what is amiss."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained import entries, layouts
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.formats import files, safetensors_file


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# ---- Layouts.

SHAPES = {
    "same": (layouts.same, (7,), [(7,)]),
    "linear": (layouts.linear, (5, 3), [(3, 5)]),
    "conv": (layouts.conv, (5, 3, 2, 4), [(2, 4, 3, 5)]),
    "pointwise": (layouts.pointwise, (5, 3, 1, 1), [(3, 5)]),
    "pointwise_1d": (layouts.pointwise_1d, (5, 3, 1), [(3, 5)]),
    "three merged": (layouts.merged(3, layouts.pointwise_1d), (12, 3, 1), [(3, 4)] * 3),
    "three merged, head by head": (layouts.merged(3, layouts.linear, heads=2), (12, 3), [(3, 4)] * 3),
    "biases merged, head by head": (layouts.merged(3, layouts.same, heads=2), (12,), [(4,)] * 3),
}


@pytest.mark.parametrize(("layout", "theirs", "ours"), SHAPES.values(), ids=SHAPES)
def test_a_layout_reads_and_writes_without_loss(layout, theirs, ours):
    array = numbers(*theirs)
    parts = layout.read(array)
    assert [part.shape for part in parts] == ours
    np.testing.assert_array_equal(layout.write(*parts), array)
    mine = [numbers(*shape, seed=i) for i, shape in enumerate(ours)]
    for part, back in zip(mine, layout.read(layout.write(*mine)), strict=True):
        np.testing.assert_array_equal(part, back)


def test_layouts_compute_the_same_layer():
    """A convolution and a dense layer by their definitions, as PyTorch documents them."""
    weight, x = numbers(5, 3, 2, 2), numbers(1, 4, 4, 3, seed=1)
    (kernel,) = layouts.conv.read(weight)
    ours = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    theirs = sum(
        np.einsum("oc,bhwc->bhwo", weight[:, :, i, j], x[:, i : i + 3, j : j + 3]) for i in range(2) for j in range(2)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        x @ layouts.linear.read(weight[:, :, 0, 0])[0], np.einsum("oc,bhwc->bhwo", weight[:, :, 0, 0], x), rtol=1e-5
    )


def test_merged_head_by_head():
    """Two heads of two features: rows are q0 q0 k0 k0 v0 v0 q1 q1 k1 k1 v1 v1."""
    rows = np.arange(12.0)
    query, key, value = layouts.merged(3, layouts.same, heads=2).read(rows)
    np.testing.assert_array_equal([query, key, value], [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]])
    query, key, value = layouts.merged(3, layouts.same).read(rows)
    np.testing.assert_array_equal([query, key, value], rows.reshape(3, 4))


# ---- Reading and writing.

QKV = tuple(f"attention/{name}/kernel" for name in ("query", "key", "value"))
TABLE = (
    Entry("conv.weight", ("conv/kernel",), layouts.conv),
    Entry("conv.bias", ("conv/bias",), copies=("other.bias", "third.bias")),
    Entry("qkv.weight", QKV, layouts.merged(3, layouts.linear, heads=2)),
    Entry("positions", (), layouts.Layout(lambda theirs: (), lambda: np.arange(4, dtype=np.float32))),
)
PARAMS = {
    "conv": {"kernel": numbers(3, 3, 2, 4), "bias": numbers(4)},
    "attention": {n: {"kernel": numbers(4, 4, seed=i)} for i, n in enumerate(("query", "key", "value"))},
}
TEMPLATE = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), PARAMS)


def weights(**changed):
    kernel = [PARAMS["attention"][n]["kernel"] for n in ("query", "key", "value")]
    theirs = {
        "conv.weight": PARAMS["conv"]["kernel"].transpose(3, 2, 0, 1),
        "conv.bias": PARAMS["conv"]["bias"],
        "other.bias": PARAMS["conv"]["bias"],
        "third.bias": PARAMS["conv"]["bias"],
        "qkv.weight": np.concatenate([k.T[:2] for k in kernel] + [k.T[2:] for k in kernel]),
        "positions": np.arange(4, dtype=np.float32),
    }
    return {name: array for name, array in (theirs | changed).items() if array is not None}


def same_tree(a, b):
    a, b = (traverse_util.flatten_dict(tree, sep="/") for tree in (a, b))
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_weights_become_parameters():
    params = entries.read(TEMPLATE, TABLE, weights())
    same_tree(params, PARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert jax.eval_shape(lambda: entries.read(TEMPLATE, TABLE, weights())) == TEMPLATE  # traced, too


def test_parameters_do_not_change_with_the_arrays_they_came_from():
    # Large and aligned: of that JAX may make an array without copying it.
    space = np.zeros(1 << 16, np.float32)
    array = space[-space.ctypes.data % 64 // 4 :][: 1 << 15]
    table, template = [Entry("a", ("a",))], {"a": jax.ShapeDtypeStruct(array.shape, array.dtype)}
    params = entries.read(template, table, {"a": array})
    array[...] = 7
    assert (np.asarray(params["a"]) == 0).all()


def test_a_round_trip_through_a_folder_is_exact(tmp_path):
    config = {"channels": [1, 2], "name": "ü"}
    entries.write(PARAMS, TABLE, tmp_path / "model", config)
    found = files.component(tmp_path / "model")
    assert found.config == config
    assert list(found.weights) == ["conv.weight", "conv.bias", "other.bias", "third.bias", "qkv.weight", "positions"]
    for name, array in weights().items():
        np.testing.assert_array_equal(np.asarray(found.weights[name]), array)
    same_tree(entries.read(TEMPLATE, TABLE, found.weights), PARAMS)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_other_floats_become_those_of_the_network(dtype):
    theirs = {name: array.astype(dtype) for name, array in weights().items()}
    params = entries.read(TEMPLATE, TABLE, theirs)
    same_tree(params, jax.tree.map(lambda a: a.astype(dtype).astype(np.float32), PARAMS))


def test_the_dtypes_of_the_file_are_kept():
    """Of each array its own, to the bit; a float64 becomes what JAX has."""
    theirs = weights() | {"conv.weight": weights()["conv.weight"].astype(jnp.bfloat16)}
    theirs |= {name: theirs[name].astype(np.float16) for name in ("conv.bias", "other.bias", "third.bias")}
    theirs["qkv.weight"] = theirs["qkv.weight"].astype(np.float64)
    params = entries.read(entries.as_stored(TEMPLATE, TABLE, theirs), TABLE, theirs)
    conv = {"kernel": PARAMS["conv"]["kernel"].astype(jnp.bfloat16), "bias": PARAMS["conv"]["bias"].astype("f2")}
    same_tree(params, PARAMS | {"conv": conv})
    less = {name: array for name, array in theirs.items() if name != "conv.bias"}
    with pytest.raises(InputError, match=r"missing: conv.bias$"):
        entries.read(entries.as_stored(TEMPLATE, TABLE, less), TABLE, less)
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float16), TEMPLATE)
    with pytest.raises(InputError, match=r"overflow float16: qkv.weight; take bfloat16 or float32$"):
        entries.read(half, TABLE, weights(**{"qkv.weight": np.full((12, 4), 1e5)}))


FAULTS = {
    "missing": ({"conv.bias": None}, r"these are not the weights of this network; missing: conv.bias$"),
    "a copy missing": ({"third.bias": None}, r"missing: third.bias$"),
    "unknown": ({"extra": numbers(2)}, r"these are not the weights of this network; unknown: extra$"),
    "shape": ({"conv.bias": numbers(5)}, r"of another shape: conv.bias \(5,\) instead of \(4,\)$"),
    "not square": ({"conv.weight": numbers(4, 2, 1, 1)}, r"conv.weight \(4, 2, 1, 1\) instead of \(4, 2, 3, 3\)$"),
    "integers": ({"conv.bias": np.arange(4, dtype=np.int8)}, r"no floats: conv.bias int8$"),
    "copies differ": ({"third.bias": numbers(4, seed=9)}, r"^third.bias differs from conv.bias"),
    "not finite": ({"qkv.weight": np.full((12, 4), np.inf)}, r"not finite: qkv.weight; get the file again$"),
    "too large": ({"qkv.weight": np.full((12, 4), -1e300)}, r"overflow float32: qkv.weight; get the file again$"),
    "several": (
        {"conv.bias": None, **{f"w{i}": numbers(1) for i in range(13)}},
        r"missing: conv.bias; unknown: w0, w1, w2, w3, w4, w5, w6, w7, w8, w9 and 3 more$",
    ),
}


@pytest.mark.parametrize(("changed", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_of_the_weights_are_named(changed, message):
    with pytest.raises(InputError, match=message) as raised:
        entries.read(TEMPLATE, TABLE, weights(**changed))
    assert "\n" not in str(raised.value)


def test_nothing_is_read_before_names_and_shapes_are_right(tmp_path):
    theirs = {name: (array.dtype, array.shape) for name, array in weights().items()}
    safetensors_file.write(tmp_path / "w.safetensors", theirs, iter(weights().values()))
    stored = files.weights(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").unlink()
    with pytest.raises(InputError, match="unknown: extra"):
        entries.read(TEMPLATE, TABLE, stored | {"extra": stored["conv.bias"]})
    with pytest.raises(InputError, match="cannot read"):  # the control: now it is read
        entries.read(TEMPLATE, TABLE, stored)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE[1:], r"the table of names is not that of this network; not in the table: conv/kernel$"),
        ((*TABLE, Entry("more", ("more",))), r"not in the network: more$"),
        ((*TABLE, Entry("more", ("conv/bias",))), r"twice in the table: conv/bias$"),
    ],
)
def test_a_table_of_another_network_is_refused(tmp_path, table, message):
    with pytest.raises(InputError, match=message):
        entries.read(TEMPLATE, table, weights())
    with pytest.raises(InputError, match=message):
        entries.write(PARAMS, table, tmp_path, {})
    assert not list(tmp_path.iterdir())


# ---- Memory.

ARRAYS, SHAPE = 32, (1024, 512)  # 32 arrays of 1 MiB in bfloat16
MEASURE = f"""
import sys
import jax, numpy as np
from diffusion_jax.pretrained import entries, layouts; from diffusion_jax.pretrained.formats import files
names = [f"w{{i}}" for i in range({ARRAYS})]
table = [entries.Entry(n, (n,), layouts.linear) for n in names]
template = {{n: jax.ShapeDtypeStruct({SHAPE[::-1]}, np.float32) for n in names}}
small = {{"w0": np.ones({SHAPE}, jax.numpy.bfloat16)}}
first = {{"w0": template["w0"]}}
entries.read(entries.as_stored(first, table[:1], small), table[:1], small)
weights = files.weights(sys.argv[1])
def peak():  # ru_maxrss would begin with that of the parent process
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
if sys.argv[2] == "whole":
    weights = {{name: np.asarray(array) for name, array in weights.items()}}
params = jax.block_until_ready(entries.read(entries.as_stored(template, table, weights), table, weights))
assert {{str(array.dtype) for array in params.values()}} == {{"bfloat16"}}
print(peak() - before)
"""


def growth(path, how):
    """Peak memory of reading, beyond what the process had, in multiples of the weights; a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEASURE, path, how], capture_output=True, text=True, check=True)
    return int(done.stdout) / (2 * ARRAYS * SHAPE[0] * SHAPE[1])


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is told in /proc")
def test_reading_takes_no_second_copy_of_the_weights(tmp_path):
    """In the dtype of the file. Measured: 1.00 times the weights; the control, all arrays first and then the
    parameters, 2.00. Of encoders of texts, files of 234 to 1301 MiB, it was 1.01 to 1.02.
    """
    path, array = tmp_path / "w.safetensors", numbers(*SHAPE).astype(jnp.bfloat16)
    kinds = {f"w{i}": (array.dtype, array.shape) for i in range(ARRAYS)}
    safetensors_file.write(path, kinds, (array for _ in range(ARRAYS)))
    found = growth(path, "one by one")
    assert found < 1.2, found
    assert growth(path, "whole") > 1.7
