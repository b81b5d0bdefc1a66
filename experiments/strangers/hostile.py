"""Hostile files, each read in a process of its own: what comes of them, in how much time and memory.

  python -m experiments.strangers.hostile --number 300

Half of the files are crafted, each for one weakness that readers have (`crafted_*` below); the others are good files
with bytes changed, cut, repeated or moved by a generator with `--seed`. Prints a table, a row for each kind of file:

  tried      files of this kind.
  read       they were read to the end, and what was read is theirs.
  refused    one line to the person, an `InputError`.
  raised     another exception came out: a fault.
  slow       not done after `--seconds` of wall clock, then killed: a fault.
  large      the process held more than `--mebibytes` at one moment (ru_maxrss, with Python, JAX and all): a fault.
  died       the process was killed by a signal: a fault.
  executed   something that a file names was called (it would leave a mark): a fault.
  seconds, MiB   the most that one file took.

Below the table each fault has a line. The exit status is 1 if there is one.
"""

import argparse
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from diffusion_jax import pretrained
from diffusion_jax.data import numpy_files, sources
from diffusion_jax.errors import InputError
from diffusion_jax.evaluation import kept, protocol
from diffusion_jax.pretrained import entries, files, loading
from tests.pretrained import crafted as torch_crafted

FAULTS = ("raised", "slow", "large", "died", "executed")
OUTCOMES = ("read", "refused", *FAULTS)
MARK = "executed"  # the file that an executed attack leaves


class Case(NamedTuple):
    """Files to read.

    Attributes:
      name: of what is wrong with them.
      content: relative path -> bytes, or a function of the path that returns them or makes the file itself: large
        ones are made when it is their turn, for what this process holds counts in the ones that read.
    """

    name: str
    content: Mapping[str, bytes | Callable]


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
      read: reads all of what is in the folder.
      good: path -> bytes, files that are read.
      mutable: the path of the one that is mutated.
      crafted: the cases made by hand.
    """

    read: Callable[[Path], None]
    good: Mapping[str, bytes]
    mutable: str
    crafted: list[Case]


class Outcome(NamedTuple):
    """What came of a case: one of `OUTCOMES`, what was said, and the cost."""

    what: str
    said: str
    seconds: float
    mebibytes: float


# ---- Crafted files.


def fifo(path: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def zeros(path: Path) -> None:
    """A device without an end."""
    path.symlink_to("/dev/zero")


def unusual(name: str) -> list[Case]:
    """What may stand where a file should."""
    return [
        Case("pipe", {name: fifo}),
        Case("device", {name: zeros}),
        Case("folder", {f"{name}/inner": b""}),
        Case("nothing in it", {name: b""}),
        Case("no file", {"other": b""}),
        Case("a link to itself", {name: lambda path: path.symlink_to(path)}),
    ]


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
            b"}(" + b"".join(b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") + b"N" for i in range(1, 150_000)) + b"u"
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


def zipped(members: Mapping[str, bytes], packing=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


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
WEIGHTS = f"{files.WEIGHTS}.safetensors"


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


def npy(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """An .npy file with a header of our own."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + data


def described(shape: str, descr: str = "'|u1'") -> str:
    """Such a header."""
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"


def arrays_of(name: str, member: str) -> list[Case]:
    """.npz and .npy files, with an array of this name."""
    objects = BytesIO()
    np.lib.format.write_array(objects, np.array([{}, print]), allow_pickle=True)
    single = {
        "objects": lambda _: objects.getvalue(),
        "a shape of 10^12": lambda _: npy(described("(1000000000000, 8, 8, 1)"), bytes(64)),
        "a shape of 0 and 2^61": lambda _: npy(described(f"(0, {2**61}, 8, 1)")),
        "a negative shape": lambda _: npy(described("(-1, 8, 8, 1)"), bytes(64)),
        "4301 digits": lambda _: npy(described(f"({'1' * 4301}, 8, 8, 1)"), bytes(64)),
        "an entry of 10^12 bytes": lambda _: npy(described("(0, 8, 8, 1)", "'|V1000000000000'")),
        "a header of 60,000 brackets": lambda _: npy("(" * 60_000),
        "a header of 60 MB": lambda _: npy("(" * 60_000_000, version=2),
        "a header that claims 4 GiB": lambda _: b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        "code": lambda _: npy(f"__import__('os').system('touch {MARK}')"),
        "fields": lambda _: npy(described("(1,)", "[('a', '<f4')]"), bytes(4)),
        "cut off": lambda _: npy(described("(9, 8, 8, 1)"), bytes(64 * 8)),
        "[N, C, H, W]": lambda _: npy(described("(4, 3, 8, 8)"), bytes(768)),
        "text": lambda _: b"hello",
    }
    cases = [Case(f"{n}, alone", {name: content}) for n, content in single.items()]
    cases += [
        Case(f"{n}, in an archive", {name: lambda _, made=content: zipped({member: made(_)})})
        for n, content in single.items()
    ]
    contents = {
        "800 MB from 800 KB": lambda _: zipped({member: npy(described(f"({2**20}, 16, 16, 3)"), bytes(2**20 * 768))}),
        "one image of 900 MB": lambda _: zipped({member: npy(described("(1, 30000, 30000, 1)"), bytes(900_000_000))}),
        "a member twice as long": lambda _: zipped({member: npy(described("(1, 8, 8, 1)"), bytes(128))}),
        "packed by LZMA": lambda _: zipped({member: npy(described("(1, 8, 8, 1)"), bytes(64))}, zipfile.ZIP_LZMA),
        "100,000 members": lambda _: zipped({f"{i}.npy": b"" for i in range(100_000)}, zipfile.ZIP_STORED),
        "a flipped bit": lambda _: zipped({member: npy(described("(1, 8, 8, 1)"), bytes(64))}, zipfile.ZIP_STORED)[
            ::-1
        ].replace(bytes(64), bytes(63) + b"\1", 1)[::-1],
        "no array": lambda _: zipped({"a.txt": b"hello"}),
    }
    return cases + [Case(n, {name: content}) for n, content in contents.items()] + unusual(name)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, depth: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    """A PNG file of zeros."""
    entries_a_row = {0: 1, 2: 3, 6: 4}[colour] * depth // 8
    rows = bytes((1 + width * entries_a_row) * height) if rows is None else rows
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encoded(kind: str, size=(8, 8), mode="L", **options) -> bytes:
    """A picture in another format."""
    file = BytesIO()
    Image.new(mode, size, 7).save(file, kind, **options)
    return file.getvalue()


def crafted_pictures() -> list[Case]:
    """Pictures that unpack to gigabytes, carry gigabytes, or are of another depth."""
    long = zlib.compress(bytes(10**8))
    nested = {f"{'a/' * depth}b.png": png(8, 8) for depth in range(0, 60, 10)}
    contents = {
        "20,000 x 20,000": ("b.png", lambda _: png(20_000, 20_000)),
        "13,000 x 13,000": ("b.png", lambda _: png(13_000, 13_000)),
        "9,000 x 9,000": ("b.png", lambda _: png(9_000, 9_000)),
        "7,000 x 7,000 with an alpha": ("b.png", lambda _: png(7_000, 7_000, colour=6)),
        "2^31 - 1 wide": ("b.png", lambda _: png(2**31 - 1, 1, rows=b"\0")),
        "0 wide": ("b.png", lambda _: png(0, 8)),
        "a long profile": ("b.png", lambda _: png(8, 8, chunk(b"iCCP", b"a\0\0" + long))),
        "a long text": ("b.png", lambda _: png(8, 8, chunk(b"zTXt", b"a\0\0" + long))),
        "many long texts": (
            "b.png",
            lambda _: png(8, 8, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))] * 200),
        ),
        "16-bit grey": ("b.png", lambda _: png(8, 8, depth=16)),
        "16-bit RGB": ("b.png", lambda _: png(8, 8, depth=16, colour=2)),
        "chunk of 2^31": ("b.png", lambda _: png(8, 8)[:33] + b"\x7f\xff\xff\xffIDAT"),
        "wrong checksum": ("b.png", lambda _: png(8, 8)[:-20] + b"\0" * 20),
        "no picture": ("b.png", lambda _: b"hello"),
        "a GIF of 60,000 x 60,000": (
            "b.gif",
            lambda _: b"GIF89a\x60\xea\x60\xea\x00\x00\x00,\0\0\0\0\x60\xea\x60\xea\0\x08\0",
        ),
        "a TIFF of 2^32 strips": (
            "b.tif",
            lambda _: (
                b"II*\0\x08\0\0\0\x03\0"
                + b"".join(
                    struct.pack("<HHII", tag, 4, count, value)
                    for tag, count, value in ((256, 1, 8), (257, 1, 8), (273, 2**32 - 1, 8))
                )
                + bytes(4)
            ),
        ),
        "a TIFF of floats": ("b.tiff", lambda _: encoded("TIFF", mode="F")),
        "16-bit RGB TIFF": ("b.tiff", lambda _: encoded("TIFF", mode="I;16")),
        "a BMP of 2^31": (
            "b.bmp",
            lambda _: encoded("BMP")[:18] + b"\xff\xff\xff\x7f\xff\xff\xff\x7f" + encoded("BMP")[26:],
        ),
        "a WebP of 7,000 x 7,000": (
            "b.webp",
            lambda _: encoded("WEBP", size=(7_000, 7_000), mode="RGB", lossless=True),
        ),
        "an EXIF that is none": ("b.jpg", lambda _: encoded("JPEG", exif=b"Exif\0\0" + b"\xff" * 1000)),
        "a PNG named .jpg": ("b.jpg", lambda _: png(8, 8)),
        "an EPS named .png": ("b.png", lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"),
    }
    cases = [Case(n, {name: content, "c.png": png(8, 8)}) for n, (name, content) in contents.items()]
    cases += [
        Case("links in a circle", {"b.png": png(8, 8), "d": lambda path: path.symlink_to(path.parent)}),
        Case("many circles", {"b.png": png(8, 8)} | {f"d{i}": lambda p: p.symlink_to(p.parent) for i in range(20)}),
        Case("hidden", {".hidden/b.png": b"", "__MACOSX/c.png": b"", "d.png": png(8, 8)}),
        Case("nested", nested),
        Case("a link to nowhere", {"b.png": lambda path: path.symlink_to("nowhere"), "c.png": png(8, 8)}),
    ]
    return cases + [Case(case.name, dict(case.content) | {"c.png": png(8, 8)}) for case in unusual("b.png")]


def crafted_report() -> list[Case]:
    """Files that `--compare` is given."""
    contents = {
        "60 MB of [[],[],...]": lambda _: b'{"protocol":[' + b"[]," * 20_000_000 + b"[]]}",
        "protocol of a list": lambda _: b'{"protocol":[],"subject":{},"metrics":{}}',
        "metrics of a number": lambda _: b'{"protocol":{},"subject":{},"metrics":3}',
        "metrics of text": lambda _: b'{"protocol":{},"subject":{},"metrics":{"a":"b"}}',
        "deep": lambda _: b'{"protocol":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b',"subject":{},"metrics":{}}',
        "4301 digits": lambda _: b'{"protocol":{},"subject":{},"metrics":{"a":' + b"1" * 4301 + b"}}",
    }
    return [Case(n, {"a.json": content}) for n, content in contents.items()] + unusual("a.json")


# ---- How each kind is read.


def all_arrays(path) -> None:
    """Every array of a file of weights."""
    for array in files.weights(path).values():
        np.asarray(array)


def images(path) -> None:
    """What an evaluation reads of `--images`."""
    found = kept.of_path(path)
    found.sha256()
    found.some(10)


def pictures(folder: Path) -> None:
    """A folder's pictures, all of them."""
    source = sources.folder(folder, 8, channels=3)
    for i in range(len(source)):
        source[i]


def compared(path) -> None:
    """A report beside itself."""
    report = protocol.read(path)
    protocol.compare(report, report)
    protocol.differences(report, report)


def kinds() -> dict[str, Kind]:
    """All kinds of files that are read."""
    with ProcessPoolExecutor(1, get_context("fork")) as other:  # a process whose JAX has started should not fork
        folder = other.submit(model).result()
    c = torch_crafted
    floats = np.arange(6, dtype="<f4")
    weights = safetensors({"a": entry([2, 3], 0, 24), "b": entry([1], 24, 28)}, floats.tobytes() + b"1234")
    tensors = {"a": c.tensor(c.storage("0", 6), (2, 3)), "b": c.tensor(c.storage("1", 6), (3, 2), (1, 3))}
    archive = c.zipped(c.dictionary(tensors), dict.fromkeys("01", floats.tobytes()))
    shown = npy(described("(4, 8, 8, 1)"), bytes(range(256)))
    told = npy(described("(2, 3)", "'<f4'"), floats.tobytes())
    report = {"protocol": {"a": 1}, "subject": {"b": 2}, "metrics": {"c": 0.5}}
    index = json.dumps({"weight_map": {"a": "p.safetensors", "b": "p.safetensors"}}).encode()
    name = "a.safetensors.index.json"
    return {
        "safetensors": Kind(
            lambda root: all_arrays(root / "a.safetensors"),
            {"a.safetensors": weights},
            "a.safetensors",
            crafted_safetensors(),
        ),
        "torch.save": Kind(lambda root: all_arrays(root / "a.pt"), {"a.pt": archive}, "a.pt", crafted_torch()),
        "index": Kind(
            lambda root: all_arrays(root / name), {name: index, "p.safetensors": weights}, name, crafted_index()
        ),
        "published folder": Kind(
            lambda root: pretrained.load(root).sampling(), folder, "config.json", crafted_folder(folder)
        ),
        "--condition": Kind(
            lambda root: numpy_files.arrays(root / "a.npz"),
            {"a.npz": zipped({"a.npy": told})},
            "a.npz",
            arrays_of("a.npz", "a.npy"),
        ),
        "--images": Kind(
            lambda root: images(root / "a.npz"),
            {"a.npz": zipped({"images.npy": shown})},
            "a.npz",
            arrays_of("a.npz", "images.npy"),
        ),
        "pictures": Kind(pictures, {"b.png": png(8, 8), "c.png": png(9, 9)}, "b.png", crafted_pictures()),
        "--compare": Kind(
            lambda root: compared(root / "a.json"),
            {"a.json": json.dumps(report).encode()},
            "a.json",
            crafted_report(),
        ),
    }


# ---- Mutations, and what comes of a case.


def mutated(content: bytes, generator: np.random.Generator) -> tuple[str, bytes]:
    """(how, the bytes with one to four changes)."""
    changed, hows = bytearray(content), []
    for _ in range(generator.integers(1, 5)):
        at, length = (int(n) for n in generator.integers(0, max(1, len(changed)), 2))
        how = ("byte", "bit", "cut", "repeated", "moved", "longest", "digits")[generator.integers(7)]
        hows.append(f"{how} at {at}")
        if how == "cut":
            del changed[at : at + length % 64 if generator.random() < 0.7 else None]
        elif how == "repeated":
            changed[at:at] = changed[at : at + length % 256] * int(generator.integers(1, 20))
        elif how == "moved":
            piece = changed[at : at + length % 64]
            del changed[at : at + length % 64]
            changed[length % (len(changed) + 1) :][:0] = piece
        elif how == "longest":
            changed[at : at + 4] = b"\xff" * 4
        elif how == "digits":
            changed[at : at + 1] = b"9" * int(generator.choice([1, 10, 20, 400, 5000]))
        elif changed:
            changed[at] = generator.integers(256) if how == "byte" else changed[at] ^ 1 << int(generator.integers(8))
    return ", ".join(hows), bytes(changed)


def put(root: Path, content: Mapping[str, bytes | Callable]) -> None:
    """Write a case's files."""
    for name, made in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = made(path) if callable(made) else made
        if content is not None:
            path.write_bytes(content)


def outcome(read: Callable[[Path], None], case: Case, seconds: float, mebibytes: float) -> Outcome:
    """Read a case in a process of its own."""
    root = Path(tempfile.mkdtemp(prefix="hostile_"))
    said = root / "said"
    try:
        put(root / "files", case.content)
        start, child = time.monotonic(), os.fork()
        if not child:
            _child(read, root, said)
        while time.monotonic() < start + seconds:
            found, status, usage = os.wait4(child, os.WNOHANG)
            if found:
                break
            time.sleep(0.002)
        else:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
        took, held = time.monotonic() - start, usage.ru_maxrss / 1024
        what, text = said.read_text().split(" ", 1) if said.exists() else ("died", f"status {status}")
        if took >= seconds:
            what = "slow"
        elif held > mebibytes:
            what, text = "large", f"({what}) {text}"
        if (root / MARK).exists():
            what = "executed"
        return Outcome(what, text, took, held)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _child(read, root: Path, said: Path) -> None:
    """Never returns."""
    try:
        os.chdir(root)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        # A crash of its own is better than one of the machine's memory.
        resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
        try:
            read(root / "files")
        except InputError as error:
            text = str(error)
            result = f"refused {text}" if "\n" not in text else f"raised several lines: {text}"
        except BaseException as error:  # noqa: BLE001
            result = f"raised {type(error).__name__}: {str(error)[:200]}"
        else:
            result = "read "
        said.write_bytes(result.encode(errors="replace"))
    finally:
        os._exit(0)


def main() -> int:
    """Try them all, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=300, help="files in all; crafted ones first (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--mebibytes", type=float, default=1024.0)
    parser.add_argument("--kind", help="only this one")
    parser.add_argument("--show", action="store_true", help="also what was said of each file")
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    tried = {name: kind for name, kind in kinds().items() if options.kind in (None, name)}
    cases = [(name, case) for name, kind in tried.items() for case in (Case("good", kind.good), *kind.crafted)]
    names = list(tried)
    while len(cases) < options.number:
        name = names[len(cases) % len(names)]
        kind = tried[name]
        how, content = mutated(kind.good[kind.mutable], generator)
        cases.append((name, Case(f"mutated: {how}", dict(kind.good) | {kind.mutable: content})))
    counts, slowest, largest, faults = {name: Counter() for name in names}, Counter(), Counter(), []
    for name, case in cases:
        found = outcome(tried[name].read, case, options.seconds, options.mebibytes)
        if case.name == "good" and found.what != "read":
            found = found._replace(what="raised", said=f"a good file: {found.what} {found.said}")
        counts[name][found.what] += 1
        slowest[name] = max(slowest[name], found.seconds)
        largest[name] = max(largest[name], found.mebibytes)
        if found.what in FAULTS:
            faults.append(
                f"{name}: {case.name}: {found.what}: {found.said} ({found.seconds:.1f} s, {found.mebibytes:.0f} MiB)"
            )
        if options.show:
            print(
                f"{name}: {case.name}: {found.what} {found.said[:160]} {found.seconds:.2f} s {found.mebibytes:.0f} MiB"
            )
    print(f"{'':<18}{'tried':>6}" + "".join(f"{what:>9}" for what in OUTCOMES) + f"{'seconds':>9}{'MiB':>7}")
    for name in names:
        row = counts[name]
        cells = "".join(f"{row[what]:>9}" for what in OUTCOMES)
        print(f"{name:<18}{row.total():>6}{cells}{slowest[name]:>9.1f}{largest[name]:>7.0f}")
    print("\n".join(faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
