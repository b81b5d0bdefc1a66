"""Files of torch.save, made by hand: what is in them is read, what they should not do is not done."""

import contextlib
import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest
from crafted import (
    BUILD,
    NONE,
    ORDERED,
    PERSISTENT,
    REDUCE,
    call,
    dictionary,
    legacy,
    name,
    number,
    numbers,
    program,
    several,
    storage,
    tensor,
    text,
    zipped,
)

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.formats import pickles, torch_file

pytestmark = pytest.mark.slow

A = np.arange(6, dtype="<f4").reshape(2, 3) + 0.5
B = np.arange(4, dtype="<i8")
FLOATS = A.tobytes()


def weights(**options):
    """Two tensors that share a storage, one of them transposed, and one of integers."""
    shared = storage("0", 6, **options)
    return dictionary(
        {
            "a": tensor(shared, (2, 3)),
            "row": tensor(shared, (3,), offset=3),
            "transposed": tensor(shared, (3, 2), (1, 3)),
            "b": tensor(storage("1", 4, "i8", **options), (4,)),
            "steps": number(7),
        }
    )


def zip_file():
    return zipped(weights(), {"0": FLOATS, "1": B.tobytes()}, extra=[("byteorder", b"little")])


def legacy_file():
    return legacy(weights(legacy=True), {"0": (6, FLOATS), "1": (4, B.tobytes())})


@pytest.fixture
def load(tmp_path):
    def load(content: bytes, key=None):
        path = tmp_path / "weights.pt"
        path.write_bytes(content)
        return {k: np.asarray(v) for k, v in torch_file.load(path, key).items()}

    return load


@pytest.mark.parametrize("file", [zip_file, legacy_file])
def test_tensors_are_read(load, file):
    found = load(file())
    assert list(found) == ["a", "row", "transposed", "b"]
    np.testing.assert_array_equal(found["a"], A)
    np.testing.assert_array_equal(found["row"], A[1])
    np.testing.assert_array_equal(found["transposed"], A.T)
    np.testing.assert_array_equal(found["b"], B)
    assert {k: v.dtype for k, v in found.items()} == {
        **dict.fromkeys(("a", "row", "transposed"), np.dtype("f4")),
        "b": np.dtype("i8"),
    }


def test_shapes_are_known_without_reading(tmp_path):
    (tmp_path / "weights.pt").write_bytes(zip_file())
    found = torch_file.load(tmp_path / "weights.pt")
    assert found["transposed"].shape == (3, 2)
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(InputError, match="cannot read"):
        np.asarray(found["a"])


def test_a_file_that_shrinks_is_noticed(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(zip_file())
    found = torch_file.load(path)
    path.write_bytes(zip_file()[: found["b"].offset + 3])
    with pytest.raises(InputError, match="shorter"):
        np.asarray(found["b"])


@pytest.mark.parametrize(("kind", "dtype"), [("f2", "float16"), ("bf", "bfloat16")])
def test_halves(load, kind, dtype):
    content = (A / 4).astype(np.float32).astype(np.float16)
    stored = content.tobytes() if kind == "f2" else (A.view("<u4") >> 16).astype("<u2").tobytes()
    found = load(zipped(dictionary({"a": tensor(storage("0", 6, kind), (2, 3))}), {"0": stored}))["a"]
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found.astype(np.float32), content if kind == "f2" else A)


def test_empty_and_scalar_tensors(load):
    # Strides of axes with one entry or none mean nothing, and may be anything.
    value = {"none": tensor(storage("0", 6), (0, 3), (2**61, 1)), "one": tensor(storage("0", 6), (1,), (2**61,), 4)}
    found = load(zipped(dictionary(value | {"scalar": tensor(storage("0", 6), (), (), 5)}), {"0": FLOATS}))
    assert found["none"].shape == (0, 3)
    assert found["one"] == A[1, 1]
    assert found["scalar"] == A[1, 2]


def test_a_state_dict_with_attributes_and_parameters(load):
    """What `Module.state_dict` saves: an OrderedDict with `_metadata` set on it; and a Parameter in it."""
    parameter = call(name(b"torch._utils", b"_rebuild_parameter"), tensor(storage("0", 6), (6,)), NONE, ORDERED)
    value = ORDERED + b"(" + text("a") + parameter + b"u" + dictionary({"_metadata": ORDERED}) + BUILD
    np.testing.assert_array_equal(load(zipped(value, {"0": FLOATS}))["a"], A.ravel())


def test_a_state_dict_inside(load):
    inner = {"a": tensor(storage("0", 6), (6,))}
    outer = {"epoch": number(3), "model": dictionary(inner), "ema": dictionary(inner)}
    file = zipped(dictionary(outer), {"0": FLOATS})
    np.testing.assert_array_equal(load(file, "ema")["a"], A.ravel())
    with pytest.raises(InputError, match=r"no tensors at its top; give one of its keys: 'model', 'ema'$"):
        load(file)
    with pytest.raises(InputError, match=r"no tensors under 'optimizer'; give one"):
        load(file, "optimizer")
    with pytest.raises(InputError, match="save a state dict"):
        load(zipped(number(3), {}))


# ---- Code.


class Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def attacks(sentinel):
    """Pickles that create a file when Python reads them, and others that would if the reader were laxer."""
    shell, python = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w').close()"
    run = [text(shell)]
    system = name(b"os", b"system")
    imported = call(name(b"builtins", b"__import__"), text("os"))
    return {
        "os.system": pickle.dumps(Reduced(os.system, (shell,)), 2),
        "protocol 4": pickle.dumps(Reduced(os.system, (shell,)), 4),
        "protocol 5": pickle.dumps(Reduced(os.system, (shell,)), 5),
        "eval": pickle.dumps(Reduced(eval, (python,)), 2),
        "exec": pickle.dumps(Reduced(exec, (python,)), 2),
        "getattr": program(call(call(name(b"builtins", b"getattr"), imported, text("system")), *run)),
        "in a dictionary": pickle.dumps({"a": [1, (Reduced(os.system, (shell,)),)]}, 2),
        "as a key": program(b"}(" + call(system, *run) + number(1) + b"u"),
        "in a tensor": program(call(name(b"torch._utils", b"_rebuild_tensor_v2"), call(system, *run), number(0))),
        "as a storage": program(several(text("storage"), call(system, *run)) + PERSISTENT),
        "as state": pickle.dumps(Reduced(dict, (), Reduced(os.system, (shell,))), 2),
        "INST": program(b"(" + text(shell) + b"ios\nsystem\n"),
        "OBJ": program(b"(" + system + text(shell) + b"o"),
        "NEWOBJ": program(name(b"subprocess", b"Popen") + several(text(shell)) + b"\x81"),
        "EXT1": program(b"\x82\x01" + several(*run) + REDUCE),
        "STACK_GLOBAL": program(text("os") + text("system") + b"\x93" + several(*run) + REDUCE, 4),
        "dotted name": program(text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93", 4),
        "torch.load": program(call(name(b"torch", b"load"), *run)),
    }


EXECUTED = ["os.system", "protocol 4", "protocol 5", "eval", "exec", "getattr", "in a dictionary", "as state"]


@pytest.mark.parametrize("which", attacks(""))
@pytest.mark.parametrize("where", ["zip", "legacy", "magic", "keys"])
def test_nothing_is_executed(tmp_path, load, which, where):
    sentinel = tmp_path / "sentinel"
    attack = attacks(sentinel)[which]
    value = attack[2:-1]
    file = {
        "zip": lambda: zipped(value, {}),
        "legacy": lambda: legacy(value, {}),
        "magic": lambda: legacy(weights(legacy=True), {}, magic=attack),
        "keys": lambda: legacy(weights(legacy=True), {})[: -len(pickle.dumps([], 2))] + attack,
    }[where]()
    with pytest.raises(InputError) as raised:
        load(file)
    assert "\n" not in str(raised.value)
    assert not sentinel.exists()
    if which in EXECUTED and where == "zip":  # the control: what is refused would have acted
        assert "holds code" in str(raised.value)
        with contextlib.suppress(pickle.UnpicklingError):
            pickle.loads(attack)
        assert sentinel.exists()


def test_the_name_of_the_code_is_told(load):
    with pytest.raises(InputError, match=r"weights.pt holds code: 'os.system'; only weights are read"):
        load(zipped(call(name(b"os", b"system"), text("true")), {}))


def test_attributes_cannot_be_set_on_what_the_reader_calls(load):
    state = several(NONE, dictionary({"make": number(1), "__defaults__": several(number(1)), "__code__": NONE}))
    value = name(b"torch._utils", b"_rebuild_tensor_v2") + state + BUILD + b"0"
    with pytest.raises(InputError):
        load(zipped(value, {}))
    assert list(load(zip_file())) == ["a", "row", "transposed", "b"]


# ---- Sizes that lie.

BAD_TENSORS = {
    "beyond the storage": tensor(storage("0", 6), (2, 4)),
    "offset beyond the storage": tensor(storage("0", 6), (6,), offset=1),
    "negative offset": tensor(storage("0", 6), (2,), offset=-4),
    "negative size": tensor(storage("0", 6), (-2, -3), (3, 1)),
    "negative stride": tensor(storage("0", 6), (2,), (-1,)),
    "strides beyond the storage": tensor(storage("0", 6), (2, 3), (4, 1)),
    "more strides than sizes": tensor(storage("0", 6), (6,), (1, 1)),
    "repeated without end": tensor(storage("0", 6), (10**9, 10**9), (0, 0)),
    "product that wraps around": tensor(storage("0", 6), (2**33, 2**33), (0, 0)),
    "too many axes": tensor(storage("0", 6), (1,) * 100),
    "a storage of another size": tensor(storage("0", 2**40), (6,)),
    "a storage of fewer entries": tensor(storage("0", 5), (5,)),
    "a storage of another type": tensor(storage("0", 6, "f2"), (6,)),
    "a storage of thousands of digits": tensor(storage("0", 2**70), (6,)),
    "zero and 2^61": tensor(storage("0", 6), (0, 2**61), (1, 1)),
    "a storage of negative size": tensor(storage("0", -6), (6,)),
    "a storage that is missing": tensor(storage("5", 6), (6,)),
    "no storage": tensor(number(1), (6,)),
    "a size of text": call(
        name(b"torch._utils", b"_rebuild_tensor_v2"), storage("0", 6), number(0), text("ab"), text("ab"), NONE, NONE
    ),
}


@pytest.mark.parametrize("bad", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_sizes_that_the_file_does_not_have_are_refused(load, bad):
    good = tensor(storage("0", 6), (6,))
    assert list(load(zipped(dictionary({"good": good}), {"0": FLOATS}))) == ["good"]
    with pytest.raises(InputError):
        load(zipped(dictionary({"good": good, "bad": bad}), {"0": FLOATS}))


DOUBLED = b"q\x00" + b"h\x00\x86q\x00" * 60  # (x, x) of what is on the stack, sixty times: 2^60 entries
BOMBS = {
    "bytes": b"\x8e" + (2**60).to_bytes(8, "little") + b"x",
    "a bytearray": b"\x96" + (2**40).to_bytes(8, "little"),
    "a string": b"X\xff\xff\xff\xff",
    "a place in the memo": number(1) + b"r\xff\xff\xff\xff",
    "a deep key": b"}" + b")" + b"\x85" * 200_000 + number(1) + b"s",
    "a deep list": b"]" + b"](" * 100_000,
    "doubled pairs as a name": b")" + DOUBLED + b"h\x00\x93",
    "doubled pairs as a key": b"}" + b")" + DOUBLED + number(1) + b"s",
    "doubled pairs as a shape": tensor(storage("0", 6), ()).replace(numbers(()), b")" + DOUBLED, 1),
    "doubled pairs as a storage": b")" + DOUBLED + PERSISTENT,
    "doubled pairs as a dictionary": name(b"collections", b"OrderedDict") + b")" + DOUBLED + REDUCE,
    "a list walked many times": several(*[several(text("a"), number(1))] * 3000)
    + b"q\x00"
    + b"".join([name(b"collections", b"OrderedDict") + b"h\x00\x85" + REDUCE] * 3000),
    "an integer of 4301 digits": b"\x8b" + struct.pack("<I", 2000) + b"\x7f" * 2000,
    "keys of one hash": b"}(" + b"".join(number(i * (2**61 - 1)) * 2 for i in range(1, 4)) + b"u",
    "a deep pair": call(name(b"collections", b"OrderedDict"), b"](" + b")" + b"\x85" * 200_000 + b"K\x01\x86e"),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_claimed_lengths_and_depths_are_harmless(load, bomb):
    for file in (zipped(bomb, {}), legacy(bomb, {})):
        with pytest.raises(InputError):
            load(file)


# ---- Files of other kinds, and damaged ones.


def twice(entry):
    """The archive with a second member of a name that it has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped(weights(), {"0": FLOATS}, extra=[(entry, FLOATS)])


OTHERS = {
    "empty": (b"", "is empty"),
    "text": (b"hello " * 100, "not a file of torch.save"),
    "zip of something else": (zipped(number(1), {}).replace(b"data.pkl", b"data.txt"), "no data.pkl"),
    "TorchScript": (zipped(weights(), {}, extra=[("constants.pkl", b"")]), "TorchScript"),
    "compressed": (zipped(weights(), {"0": FLOATS}, zipfile.ZIP_DEFLATED), "compressed"),
    "big-endian": (zipped(weights(), {}, extra=[("byteorder", b"big")]), "big-endian"),
    "big-endian, legacy": (legacy(weights(legacy=True), {}, little=False), "big-endian"),
    "cut off": (legacy_file()[:-1], "cut off"),
    "a name twice": (twice("data/0"), "a name twice"),
    "the wrong length of a storage": (legacy(weights(legacy=True), {"0": (7, FLOATS)}), "not of the size"),
    "a module": (zipped(call(name(b"torch.nn", b"Linear")), {}), "holds code: 'torch.nn.Linear'"),
}


@pytest.mark.parametrize(("content", "message"), OTHERS.values(), ids=OTHERS)
def test_other_files_are_refused(load, content, message):
    with pytest.raises(InputError, match=message):
        load(content)


def test_folders_and_missing_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(InputError, match="cannot read"):
            torch_file.load(path)


@pytest.mark.parametrize("file", [zip_file, legacy_file])
def test_damaged_files_give_arrays_or_an_input_error(load, file):
    """Seed 0; every truncation, and 400 files with 1 to 3 bytes changed; nothing but `InputError` may come out."""
    whole, rng, messages = file(), np.random.default_rng(0), []
    damaged = [whole[:n] for n in range(0, len(whole), 3)]
    for _ in range(400):
        content = bytearray(whole)
        for at in rng.integers(len(whole), size=rng.integers(1, 4)):
            content[at] = rng.integers(256)
        damaged.append(bytes(content))
    for content in damaged:
        try:
            found = load(content)
        except InputError as error:
            messages.append(str(error))
        else:
            assert all(array.nbytes <= len(whole) for array in found.values())
    assert len(messages) > len(damaged) // 2
    assert not any("\n" in message for message in messages)


def test_the_steps_of_a_pickle_are_bounded(load, monkeypatch):
    """A container of 300 pairs takes some 1200 steps to make, and 300 for each call that it is handed to."""
    walk = name(b"collections", b"OrderedDict") + b"h\x00\x85" + REDUCE
    handed = several(*[several(text("a"), number(1))] * 300) + b"q\x00"
    for content, most in ((b"N" * 500, 400), (handed + walk * 5, 2500)):
        monkeypatch.setattr(pickles, "MOST", most)
        with pytest.raises(InputError, match=r"more than weights \(over \d+ steps\)"):
            load(zipped(content, {}))
        assert list(load(zip_file())) == ["a", "row", "transposed", "b"]


def test_tensors_beyond_what_the_file_has_are_refused(load):
    """Each within its storage; together more than the file could say apart."""
    shared = tensor(storage("0", 60_000), (60_000,))
    data = {"0": bytes(240_000)}
    assert len(load(zipped(dictionary({str(i): shared for i in range(3)}), data))) == 3
    with pytest.raises(InputError, match="would be tensors of 4800000"):
        load(zipped(dictionary({str(i): shared for i in range(20)}), data))
