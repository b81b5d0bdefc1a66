"""Files of safetensors made by hand: what is in them is read, and damaged ones are refused."""

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.formats import safetensors_file

A = np.arange(6, dtype="<f4").reshape(2, 3) + 0.5
B = np.arange(4, dtype="<i8")


def file(header: dict | str, data: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


WHOLE = file(
    {"__metadata__": {"format": "pt"}, "b": entry("I64", (4,), 24, 56), "a": entry("F32", (2, 3), 0, 24)},
    A.tobytes() + B.tobytes(),
)


@pytest.fixture
def load(tmp_path):
    def load(content):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(content)
        return {k: np.asarray(v) for k, v in safetensors_file.load(path).items()}

    return load


def test_arrays_are_read(load):
    found = load(WHOLE)
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["a"], A)
    np.testing.assert_array_equal(found["b"], B)
    assert (found["a"].dtype, found["b"].dtype) == (np.float32, np.int64)


def test_bfloat16(load):
    stored = (A.view("<u4") >> 16).astype("<u2").tobytes()
    found = load(file({"a": entry("BF16", (2, 3), 0, 12)}, stored))["a"]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), A)


ARRAYS = {
    "f32": A,
    "scalar": np.float32(2.5).reshape(()),
    "bf16": A.astype(jnp.bfloat16),
    "empty": np.zeros((0, 3), np.float16),
    "f64": A.astype(np.float64).T,
    "bool": A > 2,
    'name "with" Ünicode': B.astype(np.int8),
}


def shapes(arrays):
    return {name: (array.dtype, array.shape) for name, array in arrays.items()}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "folder" / "weights.safetensors"
    safetensors_file.write(path, shapes(ARRAYS), iter(ARRAYS.values()))
    found = safetensors_file.load(path)
    assert list(found) == list(ARRAYS)
    assert found["f32"].offset % 8 == 0
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(np.asarray(found[name]), array)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    def arrays():
        yield A
        raise InputError("the second array is not there")

    with pytest.raises(InputError, match="second"):
        safetensors_file.write(tmp_path / "a.safetensors", shapes({"a": A, "b": B}), arrays())
    with pytest.raises(InputError, match="c is of type complex64"):
        safetensors_file.write(tmp_path / "a.safetensors", shapes({"c": A.astype(np.complex64)}), iter([A]))
    assert not list(tmp_path.iterdir())


DAMAGED = {
    "empty": (b"", "not a file of safetensors"),
    "a header longer than the file": (struct.pack("<Q", 2**60) + b"{}", "not a file of safetensors"),
    "text": (b"hello world" * 10, "not a file of safetensors"),
    "a list": (file("[1]"), "not a file of safetensors"),
    "no JSON": (file("{"), "not a file of safetensors"),
    "no Unicode": (struct.pack("<Q", 3) + b'"\xff"', "not a file of safetensors"),
    "deep JSON": (file("[" * 100_000), "not a file of safetensors"),
    "an entry that is none": (file({"a": 3}), "entry in the header"),
    "no shape": (file({"a": {"dtype": "F32", "data_offsets": [0, 0]}}), "entry in the header"),
    "three offsets": (file({"a": entry("F32", (1,), 0, 4) | {"data_offsets": [0, 4, 8]}}), "entry in the header"),
    "another type": (file({"a": entry("F8_E4M3", (4,), 0, 4)}, b"1234"), "of type 'F8_E4M3'"),
    "negative shape": (file({"a": entry("F32", (-1, -1), 0, 4)}, b"1234"), "shape or stride"),
    "shape of text": (file({"a": entry("F32", ("a",), 0, 4)}, b"1234"), "shape or stride"),
    "another length": (file({"a": entry("F32", (2,), 0, 4)}, b"1234"), "4 bytes for shape"),
    "beyond the end": (file({"a": entry("F32", (1,), 4, 8)}, b"1234"), "cut off"),
    "before the beginning": (file({"a": entry("F32", (1,), -4, 0)}, b"1234"), "cut off"),
    "huge": (file({"a": entry("F32", (2**40, 2**20), 0, 2**62)}, b"1234"), "cut off"),
    "cut off": (WHOLE[:-1], "cut off"),
    "bytes of no array": (WHOLE + b"x", "1 bytes follow its last array"),
    "a gap": (file({"a": entry("F32", (1,), 4, 8)}, b"12345678"), "byte 4, and the one before it ends at 0"),
    "a name twice": (file('{"a": 1, "a": 1}'), "not a file of safetensors"),
    "integers of many digits": (
        file({"a": entry("F32", (1,), 0, 4)} | {"b": entry("F32", (1,), 0, 10**4000)}, b"1234"),
        "over 2\\^64 bytes for shape",
    ),
    "zero and 2^61": (file({"a": entry("F32", (0, 2**61), 0, 0)}), "no array can have the shape"),
    "a long header": (file(" " * (16 * 2**20 + 1)), "has a header of 16777217 bytes"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused(load, content, message):
    with pytest.raises(InputError, match=message) as raised:
        load(content)
    assert "\n" not in str(raised.value)


def test_files_damaged_at_random_give_arrays_or_an_input_error(load):
    """Seed 0; every truncation, and 400 files with 1 to 3 bytes changed."""
    rng, refused = np.random.default_rng(0), 0
    damaged = [WHOLE[:n] for n in range(len(WHOLE))]
    for _ in range(400):
        content = bytearray(WHOLE)
        for at in rng.integers(len(WHOLE), size=rng.integers(1, 4)):
            content[at] = rng.integers(256)
        damaged.append(bytes(content))
    for content in damaged:
        try:
            load(content)
        except InputError:
            refused += 1
    assert refused > len(damaged) // 2
