"""Hostile files of published models: weights, their indices, configs."""

import json
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.pretrained import encoders, entries, loading
from diffusion_jax.pretrained.formats import files
from experiments.strangers.cases import MARK, Case, fifo, unusual, zipped
from tests.pretrained import crafted as torch_crafted

SAFETENSORS, TORCH, INDEX = "a.safetensors", "a.pt", "a.safetensors.index.json"


def good_safetensors() -> bytes:
    """Two arrays."""
    return safetensors({"a": entry([2, 3], 0, 24), "b": entry([1], 24, 28)}, np.arange(7, dtype="<f4").tobytes())


def good_torch() -> bytes:
    """Two tensors, one of them turned."""
    c, floats = torch_crafted, np.arange(6, dtype="<f4").tobytes()
    tensors = {"a": c.tensor(c.storage("0", 6), (2, 3)), "b": c.tensor(c.storage("1", 6), (3, 2), (1, 3))}
    return c.zipped(c.dictionary(tensors), dict.fromkeys("01", floats))


def good_index() -> bytes:
    """Both arrays of `good_safetensors`."""
    return json.dumps({"weight_map": {"a": SAFETENSORS, "b": SAFETENSORS}}).encode()


def safetensors(header, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of safetensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape, begin, end, dtype="F32") -> dict:
    """An entry of its header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def crafted_safetensors() -> list[Case]:
    """Headers that are long, deep, wide or lie."""
    a, text = entry([1], 0, 4), b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    many = {f"t{i}": entry([0], 0, 0) for i in range(100_000)}
    contents = {
        "99 MB of [[],[],...]": lambda _: safetensors(b'{"a":[' + b"[]," * 33_000_000 + b"[]]}"),
        "15 MB of [[],[],...]": lambda _: safetensors(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"),
        "15 MB of dictionaries": lambda _: safetensors(b'{"a":[' + b'{"":0},' * 2_100_000 + b"[]]}"),
        "99 MB of one name": lambda _: safetensors(b'{"' + b"a" * 99_000_000 + b'":' + text + b"}", b"1234"),
        "100,000 empty arrays": lambda _: safetensors(many),
        "deep lists": lambda _: safetensors(b"[" * 15_000_000),
        "deep objects": lambda _: safetensors(b'{"a":' * 3_000_000),
        "4301 digits": lambda _: safetensors(
            b'{"a":{"dtype":"F32","shape":[' + b"1" * 4301 + b'],"data_offsets":[0,4]}}', b"1234"
        ),
        "4300 digits": lambda _: safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,' + b"1" * 4300 + b"]}}", b"1234"
        ),
        "zero and 2^61": lambda _: safetensors({"a": entry([0, 2**61], 0, 0)}),
        "zero and many 2^61": lambda _: safetensors({"a": entry([0, *[2**61] * 30], 0, 0)}),
        "2^62 bytes": lambda _: safetensors({"a": entry([2**60], 0, 2**62)}, b"1234"),
        "negative": lambda _: safetensors({"a": entry([-1, -1], 0, 4)}, b"1234"),
        "overlap": lambda _: safetensors({"a": a, "b": a}, b"1234"),
        "gap": lambda _: safetensors({"a": a, "b": entry([1], 8, 12)}, b"1234" * 3),
        "name twice": lambda _: safetensors(b'{"a":' + text + b',"a":' + text + b"}", b"1234"),
        "bytes after": lambda _: safetensors({"a": a}, b"12345"),
        "header of 2^63": lambda _: safetensors({"a": a}, b"1234", 2**63),
        "header beyond the end": lambda _: safetensors({"a": a}, b"1234", 1000),
        "half a surrogate": lambda _: safetensors(b'{"\\ud800":' + text + b"}", b"1234"),
        "NaN": lambda _: safetensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', b"1234"),
        "metadata of numbers": lambda _: safetensors({"__metadata__": {"a": 1}, "a": a}, b"1234"),
        "a list of 5,000,000 axes": lambda _: safetensors(
            b'{"a":{"dtype":"F32","shape":[' + b"1," * 5_000_000 + b'1],"data_offsets":[0,4]}}', b"1234"
        ),
        "text": lambda _: b"hello world" * 100,
    }
    return [Case(name, {"a.safetensors": content}) for name, content in contents.items()] + unusual("a.safetensors")


def crafted_torch() -> list[Case]:
    """Pickles that would call, double or never end; archives that lie."""
    c = torch_crafted
    doubled = b")q\x00" + b"h\x00\x86q\x00" * 60
    ordered = c.name(b"collections", b"OrderedDict")
    pair = c.several(c.text("a"), c.number(1))
    touch = f"touch {MARK}"
    tensor = c.tensor(c.storage("0", 6), (6,))
    data = {"0": bytes(24)}

    class Attack:
        def __reduce__(self):
            return os.system, (touch,)

    values = {
        "os.system": lambda _: pickle.dumps(Attack(), 2)[2:-1],
        "doubled pairs as a name": lambda _: doubled + b"h\x00\x93",
        "doubled pairs as a key": lambda _: b"}" + doubled + c.number(1) + b"s",
        "doubled pairs as a storage": lambda _: doubled + c.PERSISTENT,
        "doubled pairs called": lambda _: doubled + b"h\x00" + c.REDUCE,
        "doubled pairs as a dictionary": lambda _: ordered + doubled + c.REDUCE,
        "doubled pairs beside tensors": lambda _: c.dictionary({"a": tensor, "b": doubled}),
        "doubled lists": lambda _: c.dictionary({"a": tensor, "b": b"]q\x00" + b"](h\x00h\x00eq\x00" * 60}),
        "a list walked 100,000 times": lambda _: (
            c.several(*[pair] * 100_000) + b"q\x00" + (ordered + b"h\x00\x85" + c.REDUCE) * 100_000
        ),
        "60 MB of lists": lambda _: b"]" * 60_000_000,
        "60 MB of marks": lambda _: b"(" * 60_000_000,
        "100 MB of lists": lambda _: b"]" * 100_000_000,
        "a deep tuple": lambda _: b")" + b"\x85" * 1_000_000,
        "keys of one hash": lambda _: (
            b"}("
            + b"".join(b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") + b"N" for i in range(1, 150_000))
            + b"u"
        ),
        "an integer of 60,000,000 bytes": lambda _: b"\x8b" + struct.pack("<I", 60_000_000) + b"\x7f" * 60_000_000,
        "a storage of thousands of digits": lambda _: c.dictionary(
            {
                "a": c.tensor(
                    c.storage("0", 6).replace(c.number(6), b"\x8b" + struct.pack("<I", 2000) + b"\x7f" * 2000), (6,)
                )
            }
        ),
        "a claim of 2^60 bytes": lambda _: b"\x8e" + struct.pack("<Q", 2**60),
        "a claim of 4 GiB": lambda _: b"X\xff\xff\xff\xff",
        "a place of 2^32 in the memo": lambda _: c.number(1) + b"r\xff\xff\xff\xff",
        "strides of 0": lambda _: c.dictionary({"a": c.tensor(c.storage("0", 6), (10**9, 10**9), (0, 0))}),
        "strides beyond": lambda _: c.dictionary({"a": c.tensor(c.storage("0", 6), (2, 3), (2**40, 1))}),
        "zero and 2^61": lambda _: c.dictionary({"a": c.tensor(c.storage("0", 6), (0, 2**61), (1, 1))}),
        "a smaller storage": lambda _: c.dictionary({"a": c.tensor(c.storage("0", 600), (600,))}),
        "a missing storage": lambda _: c.dictionary({"a": c.tensor(c.storage("../../etc/passwd", 6), (6,))}),
    }
    shared = c.tensor(c.storage("0", 10_000_000), (10_000_000,))
    many = c.dictionary({str(i): shared for i in range(500)})
    cases = [Case(name, {"a.pt": lambda _, v=value: c.zipped(v(_), data)}) for name, value in values.items()]
    cases += [
        Case(f"{name}, the older format", {"a.pt": lambda _, v=value: c.legacy(v(_), {})})
        for name, value in values.items()
    ]
    member = struct.pack("<4s5H3L5H2L", b"PK\1\2", *[0] * 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    count = 2_000_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(member) * count, 4, 0)
    contents = {
        "500 tensors of one storage of 40 MB": lambda _: c.zipped(many, {"0": bytes(40_000_000)}),
        "a packed gigabyte": lambda _: c.zipped(
            c.dictionary({"a": tensor}), {"0": bytes(10**9)}, zipfile.ZIP_DEFLATED
        ),
        "a packed pickle": lambda _: c.zipped(b"]" * 10**8, {}, zipfile.ZIP_DEFLATED),
        "a directory of 2,000,000 members": lambda _: b"PK\3\4" + member * count + end,
        "a name that climbs": lambda _: c.zipped(
            c.dictionary({"a": tensor}), data, extra=[("../../../data.pkl", b"")]
        ),
        "a link in it": lambda _: c.zipped(c.dictionary({"a": tensor}), {}, extra=[("data/0", b"/etc/passwd")]),
        "an archive in it": lambda _: c.zipped(c.dictionary({"a": tensor}), {"0": c.zipped(b"N", {})}),
        "an archive of nothing": lambda _: zipped({}),
        "text": lambda _: b"hello" * 1000,
    }
    return cases + [Case(name, {"a.pt": content}) for name, content in contents.items()] + unusual("a.pt")


CONFIG = {
    "_class_name": "UNet2DModel",
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 8,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "sample_size": 8,
}
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 10}
WEIGHTS = f"{files.DIFFUSERS}.safetensors"


def model() -> dict[str, bytes]:
    """A published model's folder."""
    network = loading.build(CONFIG)
    leaves = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), network.template())
    with tempfile.TemporaryDirectory() as folder:
        entries.write(leaves, network.entries, folder, CONFIG)
        weights = (Path(folder) / WEIGHTS).read_bytes()
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "scheduler_config.json": json.dumps(SCHEDULER).encode(),
        WEIGHTS: weights,
    }


def crafted_folder(good: Mapping[str, bytes]) -> list[Case]:
    """Configs that are long, or ask for too much."""

    def config(name, **changed):
        return Case(name, dict(good) | {"config.json": json.dumps(CONFIG | changed).encode()})

    def scheduler(name, **changed):
        return Case(name, dict(good) | {"scheduler_config.json": json.dumps(SCHEDULER | changed).encode()})

    cases = [
        Case(
            "60 MB of [[],[],...]", dict(good) | {"config.json": lambda _: b'{"a":[' + b"[]," * 20_000_000 + b"[]]}"}
        ),
        Case("1 MB of [[],[],...]", dict(good) | {"config.json": lambda _: b'{"a":[' + b"[]," * 340_000 + b"[]]}"}),
        Case("deep", dict(good) | {"config.json": lambda _: b"[" * 1_000_000}),
        Case("4301 digits", dict(good) | {"config.json": b'{"in_channels":' + b"1" * 4301 + b"}"}),
        Case("no config", {WEIGHTS: good[WEIGHTS]}),
        scheduler("10^9 times", num_train_timesteps=10**9),
        scheduler("-1 times", num_train_timesteps=-1),
    ]
    for value in (0, -1, 10**5, 10**9, 2**63, 10**400, 1e300, float("nan"), None, "8", [8], {}, True):
        for name in ("layers_per_block", "norm_num_groups", "in_channels", "attention_head_dim", "num_class_embeds"):
            cases.append(config(f"{name} = {str(value)[:20]}", **{name: value}))
        cases.append(config(f"block_out_channels = [{str(value)[:20]}] * 2", block_out_channels=[value] * 2))
    levels = {"block_out_channels": [8] * 200, "down_block_types": ["DownBlock2D"] * 200}
    cases.append(config("200 levels", **levels, up_block_types=["UpBlock2D"] * 200))
    return cases + [
        Case(f"config: {case.name}", dict(good) | dict(case.content)) for case in unusual("config.json")[:2]
    ]


T5 = {
    "architectures": ["T5EncoderModel"],
    "vocab_size": 9,
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 8,
    "num_layers": 1,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
}
CLIP = {
    "architectures": ["CLIPVisionModel"],
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 4,
    "patch_size": 2,
}
ENCODED = f"{files.TRANSFORMERS}.safetensors"


def encoder(config: Mapping) -> dict[str, bytes]:
    """A published encoder's folder."""
    network = encoders.described(config)
    leaves = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), network.template())
    with tempfile.TemporaryDirectory() as folder:
        entries.write(leaves, network.entries, folder, config, files.TRANSFORMERS)
        weights = (Path(folder) / ENCODED).read_bytes()
    return {"config.json": json.dumps(config).encode(), ENCODED: weights}


def crafted_encoder(good: Mapping[str, bytes], config: Mapping) -> list[Case]:
    """Configs that ask for too much, or for another network than the weights'."""

    def changed(name, value):
        return Case(
            f"{name} = {str(value)[:20]}", dict(good) | {"config.json": json.dumps(config | {name: value}).encode()}
        )

    numbers = [name for name in config if name != "architectures"]
    values = (0, -1, 10**5, 10**9, 10**400, 1e300, float("nan"), "8", [8], {})
    kinds = ("T5EncoderModel", "CLIPModel", "CLIPTextModel", ["T5EncoderModel"] * 2, {}, None)
    return [changed(name, value) for name in numbers for value in values] + [
        changed("architectures", [kind]) for kind in kinds
    ]


def crafted_index() -> list[Case]:
    """Indices of sharded files."""
    contents = {
        "60 MB of [[],[],...]": lambda _: b'{"a":[' + b"[]," * 20_000_000 + b"[]]}",
        "7 MB of [[],[],...]": lambda _: b'{"a":[' + b"[]," * 2_400_000 + b"[]]}",
        "outside": lambda _: json.dumps({"weight_map": {"a": "../a.safetensors"}}).encode(),
        "missing": lambda _: json.dumps({"weight_map": {"a": "b.safetensors"}}).encode(),
        "100,000 files": lambda _: json.dumps(
            {"weight_map": {f"a{i}": f"b{i}.safetensors" for i in range(100_000)}}
        ).encode(),
        "itself": lambda _: json.dumps({"weight_map": {"a": "a.safetensors.index.json"}}).encode(),
    }
    name = "a.safetensors.index.json"
    piped = {name: json.dumps({"weight_map": {"a": "a.safetensors"}}).encode(), "a.safetensors": fifo}
    return [Case(n, {name: content}) for n, content in contents.items()] + [Case("a pipe as part", piped)]
