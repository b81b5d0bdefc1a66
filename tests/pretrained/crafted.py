"""Files of torch.save made by hand, byte by byte, so that they can be tested without torch, and made wrong."""

import io
import pickle
import struct
import zipfile

import numpy as np

STOP, REDUCE, PERSISTENT, BUILD, NONE, FALSE = b".", b"R", b"Q", b"b", b"N", b"\x89"
KINDS = {"f4": b"FloatStorage", "f2": b"HalfStorage", "bf": b"BFloat16Storage", "i8": b"LongStorage"}


def name(module: bytes, last: bytes) -> bytes:
    return b"c" + module + b"\n" + last + b"\n"


def text(s: str) -> bytes:
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def number(n: int) -> bytes:
    packed = n.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(packed)]) + packed


def numbers(ns) -> bytes:
    return several(*(number(n) for n in ns))


def several(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + several(*arguments) + REDUCE


ORDERED = call(name(b"collections", b"OrderedDict"))


def storage(key: str, size: int, kind: str = "f4", legacy: bool = False) -> bytes:
    entries = [text("storage"), name(b"torch", KINDS[kind]), text(key), text("cpu"), number(size)]
    return several(*entries, *[NONE] * legacy) + PERSISTENT


def tensor(stored: bytes, shape, strides=None, offset=0) -> bytes:
    if strides is None:
        strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    rebuild = name(b"torch._utils", b"_rebuild_tensor_v2")
    return call(rebuild, stored, number(offset), numbers(shape), numbers(strides), FALSE, ORDERED)


def program(value: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + value + STOP


def zipped(value: bytes, storages: dict[str, bytes], compression=zipfile.ZIP_STORED, extra=()) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program(value))
        for entry, content in extra:
            archive.writestr(f"archive/{entry}", content)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return file.getvalue()


def legacy(value: bytes, storages: dict[str, tuple[int, bytes]], little=True, magic=None) -> bytes:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) if magic is None else magic
    begin = magic + pickle.dumps(1001, 2) + pickle.dumps({"protocol_version": 1001, "little_endian": little}, 2)
    data = b"".join(struct.pack("<q", size) + content for size, content in storages.values())
    return begin + program(value) + pickle.dumps(list(storages), 2) + data
