"""Hostile files of data: arrays of NumPy, pictures, reports of evaluations."""

import json
import struct
import tempfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_jax.autoencoding.latents import Scaling
from diffusion_jax.data import latents
from diffusion_jax.data.latent_record import RECORD, Cache
from experiments.strangers.cases import MARK, Case, unusual, zipped


def npy(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """An .npy file with a header of our own."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + data


def described(shape: str, descr: str = "'|u1'") -> str:
    """Such a header."""
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"


def crafted_arrays(name: str, member: str) -> list[Case]:
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


def floats(*shape: int) -> bytes:
    """An .npy file of the unit matrix, or of zeros."""
    file = BytesIO()
    np.save(file, np.eye(*shape) if len(shape) == 2 else np.zeros(shape))
    return file.getvalue()


def crafted_moments(name: str) -> list[Case]:
    """Means and covariances that are none."""
    mean, square = np.zeros(3), np.eye(3)
    pairs = {
        "of other dimensions": (np.zeros(4), np.eye(4)),
        "of no dimension": (np.zeros(0), np.zeros((0, 0))),
        "not square": (mean, np.zeros((3, 4))),
        "integers": (mean.astype(int), square.astype(int)),
        "NaN": (mean, np.full((3, 3), np.nan)),
        "infinite": (mean, np.full((3, 3), np.inf)),
        "negative": (mean, -square),
        "turned": (mean, np.triu(np.ones((3, 3)))),
        "numbers": (np.float64(1), np.float64(1)),
        "text": (np.array(["a"]), square),
    }

    def saved(mu, sigma) -> bytes:
        file = BytesIO()
        np.savez(file, mu=mu, sigma=sigma)
        return file.getvalue()

    cases = [Case(n, {name: saved(*pair)}) for n, pair in pairs.items()]
    huge = npy(described("(100000, 100000)", "'<f8'"), bytes(10**8))
    lies = zipped({"mu.npy": floats(3), "sigma.npy": huge})
    alone = zipped({"mu.npy": floats(3)})
    return [*cases, Case("a shape of 10^10", {name: lies}), Case("no covariance", {name: alone}), *unusual(name)]


LATENTS = "00000-of-00001.npz"


def good_latents() -> dict[str, bytes]:
    """A folder of three latents."""
    shape, scaling = (2, 2, 1), Scaling(np.ones(1), 0.5)
    cache = Cache("a", "b", 3, 4, (4, 4, 1), shape, True, True, scaling, "a run")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        latents.claim(path, cache)
        latents.write(path, cache, 0, np.ones((3, *cache.moments), np.float32), np.arange(3))
        latents.finish(path, cache)
        return {file.name: file.read_bytes() for file in path.iterdir()}


def crafted_latents() -> list[Case]:
    """Folders of latents whose record claims much, or whose part is another."""
    good = good_latents()
    record = json.loads(good[RECORD])
    changes: dict[str, dict] = {
        "two thousand million parts": {"num": 2_000_000_000, "part": 1},
        "a part of 10^6": {"num": 10**6, "part": 10**6},
        "latents of 65536^3": {"shape": [65536] * 3},
        "no statistics": {"statistics": None},
        "channels of another number": {"shape": [2, 2, 2]},
        "a number of text": {"num": "3"},
        "a scale of 0": {"scaling": {"scale": 0, "shift": 0}},
        "without mirrors": {"mirrored": False},
        "without labels": {"labelled": False},
    }
    cases = [Case(n, good | {RECORD: json.dumps(record | change).encode()}) for n, change in changes.items()]
    parts = [Case(n, {RECORD: good[RECORD], **content}) for n, content in crafted_arrays(LATENTS, "moments.npy")]
    return cases + parts + [Case(n, {LATENTS: good[LATENTS], **content}) for n, content in unusual(RECORD)]


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


def good_report() -> bytes:
    """A report of an evaluation."""
    return json.dumps({"protocol": {"a": 1}, "subject": {"b": 2}, "metrics": {"c": 0.5}}).encode()


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
