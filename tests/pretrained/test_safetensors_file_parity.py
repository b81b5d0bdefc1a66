"""Both ways against the library of safetensors."""

import json
import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
library = pytest.importorskip("safetensors.torch", reason="parity needs safetensors: see the extra 'parity'")
library_core = pytest.importorskip("safetensors")

from diffusion_jax.core.errors import InputError  # noqa: E402
from diffusion_jax.pretrained.formats import safetensors_file  # noqa: E402

BASE = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
TENSORS = {
    "float": BASE,
    "half": BASE.half(),
    "bfloat16": BASE.bfloat16(),
    "double": BASE.double(),
    "long": torch.arange(7),
    "bool": torch.arange(7) % 2 == 0,
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
}


def as_float(array):
    return np.asarray(array).astype(np.float64)


def test_files_of_the_library_are_read(tmp_path):
    library.save_file(TENSORS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = safetensors_file.load(tmp_path / "a.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(as_float(found[name]), tensor.double().numpy())


def test_the_library_reads_our_files(tmp_path):
    library.save_file(TENSORS, tmp_path / "theirs.safetensors")
    arrays = safetensors_file.load(tmp_path / "theirs.safetensors")
    shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    safetensors_file.write(tmp_path / "ours.safetensors", shapes, map(np.asarray, arrays.values()))
    found = library.load_file(tmp_path / "ours.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


# ---- What the library accepts is accepted, what it refuses is refused.


def crafted(header, data=b"1234", pad=b""):
    """A file; the header is bytes, or an object."""
    text = (header if type(header) is bytes else json.dumps(header).encode()) + pad
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), begin=0, end=4, **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


def one(text: str) -> bytes:
    """A header with one array whose shape, offsets and further fields are text."""
    return b'{"a":{"dtype":"F32",' + text.encode() + b"}}"


A, PAIR = entry(), entry(begin=4, end=8)
WHOLE, FIELDS = json.dumps({"a": A}).encode(), json.dumps(A).encode()
BOTH = {
    "whole": crafted({"a": A}),
    "no arrays": crafted({}, b""),
    "no bytes": b"",
    "no header": struct.pack("<Q", 0),
    "spaces before": crafted(b"  " + WHOLE),
    "spaces after": crafted(WHOLE, pad=b" \n\t"),
    "a zero after": crafted(WHOLE, pad=b"\0"),
    "two objects": crafted(WHOLE + WHOLE),
    "a comma too many": crafted(WHOLE[:-1] + b",}"),
    "bytes after": crafted({"a": A}, b"12345"),
    "bytes missing": crafted({"a": A}, b"123"),
    "bytes and no arrays": crafted({}),
    "a gap": crafted({"a": A, "b": entry(begin=8, end=12)}, b"1234" * 3),
    "a gap before": crafted({"a": PAIR}, b"12345678"),
    "one place twice": crafted({"a": A, "b": A}),
    "an overlap": crafted({"a": entry(shape=(2,), end=8), "b": PAIR}, b"12345678"),
    "any order": crafted({"b": PAIR, "a": A}, b"12345678"),
    "empty arrays at ends": crafted({"e": entry(shape=(0,), end=0), "a": A, "f": entry(shape=(0,), begin=4)}),
    "an empty array in another": crafted({"a": A, "e": entry(shape=(0,), begin=2, end=2)}),
    "ends before it begins": crafted({"a": entry(begin=4, end=0)}),
    "another length": crafted({"a": entry(shape=(2,))}),
    "2^61 and then zero": crafted({"a": entry(shape=(2**61, 2**61, 0), end=0)}, b""),
    "a field twice": crafted(one('"shape":[1],"shape":[1],"data_offsets":[0,4]')),
    "metadata": crafted({"a": A, "__metadata__": {"b": "c"}}),
    "metadata of null": crafted({"a": A, "__metadata__": None}),
    "metadata of a number": crafted({"a": A, "__metadata__": {"b": 1}}),
    "metadata of a list": crafted({"a": A, "__metadata__": []}),
    "metadata twice": crafted(b'{"__metadata__":{},"__metadata__":{},"a":' + FIELDS + b"}"),
    "minus zero": crafted(one('"shape":[1],"data_offsets":[-0,4]')),
    "minus one": crafted(one('"shape":[-1],"data_offsets":[0,4]')),
    "a fraction": crafted(one('"shape":[1.0],"data_offsets":[0,4]')),
    "true": crafted(one('"shape":[true],"data_offsets":[false,4]')),
    "three offsets": crafted(one('"shape":[1],"data_offsets":[0,4,4]')),
    "2^64": crafted(one(f'"shape":[{2**64}],"data_offsets":[0,4]')),
    "4301 digits": crafted(one(f'"shape":[{"1" * 4301}],"data_offsets":[0,4]')),
    "4300 digits": crafted(one(f'"shape":[{"1" * 4300}],"data_offsets":[0,{"1" * 4300}]')),
    "NaN": crafted(one('"shape":[NaN],"data_offsets":[0,4]')),
    "no type": crafted(b'{"a":{"shape":[1],"data_offsets":[0,4]}}'),
    "another type": crafted({"a": entry("F31")}),
    "half a surrogate": crafted(b'{"\\ud800":' + FIELDS + b"}"),
    "a name of nothing": crafted({"": A}),
    "a line in a name": crafted(b'{"a\n":' + FIELDS + b"}"),
    "UTF-16": crafted(WHOLE.decode().encode("utf-16-le")),
    "a byte order mark": crafted(b"\xef\xbb\xbf" + WHOLE),
    "no Unicode": crafted(b'{"\xff":' + FIELDS + b"}"),
    "a list": crafted(b"[]", b""),
    "an entry of null": crafted(b'{"a":null}', b""),
    "deep": crafted(one('"shape":' + "[" * 500 + "]" * 500 + ',"data_offsets":[0,4]')),
}
STRICTER = {
    "a name twice": crafted(b'{"a":' + FIELDS + b',"a":' + FIELDS + b"}"),
    "a name of the metadata twice": crafted(b'{"__metadata__":{"b":"c","b":"d"},"a":' + FIELDS + b"}"),
    "a field that we do not know": crafted({"a": A | {"scale": 2}}),
    "an entry that is a list": crafted({"a": list(A.values())}),
    "zero and 2^61, which no array of NumPy has": crafted({"a": entry(shape=(0, 2**61), end=0)}, b""),
    "40 axes": crafted({"a": entry(shape=(1,) * 40)}),
    "a type that JAX has not by itself": crafted({"a": entry("F8_E4M3", (4,))}),
    "unsigned": crafted({"a": entry("U32")}),
    "a header of 17 MiB": crafted(WHOLE, pad=b" " * 17 * 2**20),
}


@pytest.mark.parametrize(("files", "stricter"), [(BOTH, False), (STRICTER, True)], ids=["alike", "stricter"])
def test_what_is_refused(tmp_path, files, stricter):
    path, other = tmp_path / "a.safetensors", []
    for name, content in files.items():
        path.write_bytes(content)
        ours = theirs = True
        try:
            {key: np.asarray(array) for key, array in safetensors_file.load(path).items()}
        except InputError:
            ours = False
        try:
            library_core.deserialize(content)
        except library_core.SafetensorError:
            theirs = False
        if (ours, theirs) != ((False, True) if stricter else (theirs, theirs)):
            other.append((name, ours, theirs))
    assert not other
