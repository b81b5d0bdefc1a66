"""Arrays in files of NumPy: what is in them is read, and what a file only claims costs nothing."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import numpy_files

A = np.arange(24, dtype="<f4").reshape(4, 3, 2)


def npy(array, **options) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **options)
    return file.getvalue()


def claimed(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An .npy file with a header of our own."""
    packing = "<H" if version == b"\x01\x00" else "<I"
    return b"\x93NUMPY" + version + struct.pack(packing, len(text)) + text.encode() + data


def header(descr: str, shape: str) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"


def npz(members: dict[str, bytes], packing=zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def file(tmp_path):
    def file(content: bytes):
        path = tmp_path / "a.npz"
        path.write_bytes(content)
        return path

    return file


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_they_were_saved(file, save):
    saved = {"a": A, "turned": A.T, "big": A.astype(">i8"), "no": np.zeros((0, 3)), "one": np.float64(2), "b": A > 3}
    save(path := file(b""), **saved)
    found = numpy_files.arrays(path)
    assert found.keys() == saved.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.dtype(array.dtype).newbyteorder("=")
    rows = numpy_files.rows(path, "none", "a", "b")
    assert (rows.dtype, rows.shape) == (A.dtype, A.shape)
    parts = list(rows.parts(3))
    assert [len(part) for part in parts] == [3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), A)


def test_one_array_is_read_by_rows_and_seen_on_disk(file):
    path = file(npy(A))
    np.testing.assert_array_equal(np.concatenate(list(numpy_files.rows(path).parts(3))), A)
    on_disk = numpy_files.Indexed(path)
    np.testing.assert_array_equal(list(on_disk), A)
    np.testing.assert_array_equal(on_disk[-1], A[-1])
    with pytest.raises(IndexError):
        on_disk[4]
    os.truncate(path, path.stat().st_size - 4)  # a memory map would end the process
    with pytest.raises(InputError, match="cut off"):
        on_disk[3]
    np.testing.assert_array_equal(on_disk[2], A[2])
    path = file(npy(A))
    with pytest.raises(InputError, match="without a name"):
        numpy_files.arrays(path)
    with pytest.raises(InputError, match="no rows one after the other"):
        numpy_files.rows(file(npy(np.asfortranarray(A))))


def test_an_array_of_an_archive_is_seen_on_disk(file):
    np.savez(path := file(b""), first=A, a=A[::-1].astype("<f2"))
    on_disk = numpy_files.Indexed(path, "a")
    assert (on_disk.dtype, on_disk.shape) == (np.float16, A.shape)
    np.testing.assert_array_equal(list(on_disk), A[::-1])
    with pytest.raises(InputError, match="has no array b; it has a, first"):
        numpy_files.Indexed(path, "b")
    np.savez_compressed(path, a=A)
    with pytest.raises(InputError, match=r"packed; save it with numpy\.savez"):
        numpy_files.Indexed(path, "a")
    for content in (WHOLE.replace(b"PK\3\4", b"PK\3\5"), WHOLE[100:], npy(A)):
        with pytest.raises(InputError, match=r"a\.npz"):
            numpy_files.Indexed(file(content), "a")
    on_disk = numpy_files.Indexed(file(WHOLE), "a")
    os.truncate(path, 150)
    with pytest.raises(InputError, match="cut off"):
        on_disk[3]


WHOLE = npz({"a.npy": npy(A)}, zipfile.ZIP_STORED)
HARMLESS = header("'<f4'", "(1,)")
BAD = {
    "objects": npy(np.array([{}, print]), allow_pickle=True),
    "text": npy(np.array(["a", "b"])),
    "fields": npy(np.zeros(2, [("a", "f4"), ("b", "f4")])),
    "a wide entry": claimed(header("'|V1000000000000'", "(0,)")),
    "more than is there": claimed(header("'<f4'", "(1000000000000,)"), b"1234"),
    "negative": claimed(header("'<f4'", "(-1, -1)"), b"1234"),
    "no number": claimed(header("'<f4'", "(True,)"), b"1234"),
    "2^61 and zero": claimed(header("'<f4'", f"(0, {2**61})")),
    "4301 digits": claimed(header("'<f4'", f"({'1' * 4301},)")),
    "code": claimed("__import__('os').abort()"),
    "deep": claimed("(" * 9000),
    "a long header": claimed("(" * 100_000, version=b"\x02\x00"),
    "a header that claims 4 GiB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
    "another version": claimed(HARMLESS, b"1234", version=b"\x09\x00"),
    "cut off": npy(A)[:-1],
}
ARCHIVES = {
    "nothing": b"",
    "no archive": b"hello world",
    "no array in it": npz({"a.txt": b"hello"}),
    "cut off, packed": npz({"a.npy": npy(A)})[:-30],
    "a flipped bit": WHOLE.replace(A.tobytes(), A.tobytes()[:-1] + b"\xff"),
    "bytes after the array": npz({"a.npy": npy(A) + b"x"}),
    "packed otherwise": npz({"a.npy": npy(A)}, zipfile.ZIP_LZMA),
}


@pytest.mark.parametrize("content", (BAD | ARCHIVES).values(), ids=BAD | ARCHIVES)
def test_bad_files_get_one_line(file, content):
    archived = content in ARCHIVES.values()
    path = file(content if archived else npz({"a.npy": content}))
    with pytest.raises(InputError, match=r"a\.npz") as error:
        numpy_files.arrays(path)
    assert "\n" not in str(error.value)
    for read in () if archived else (numpy_files.Indexed, lambda path: list(numpy_files.rows(path).parts(1))):
        with pytest.raises(InputError, match="cannot read"):
            read(file(content))
    if not archived:
        with pytest.raises(InputError, match="cannot read"):
            numpy_files.Indexed(file(npz({"a.npy": content}, zipfile.ZIP_STORED)), "a")


def test_pipes_and_names_that_are_not_there(tmp_path, file):
    os.mkfifo(tmp_path / "pipe.npz")
    for read in (numpy_files.arrays, numpy_files.rows, numpy_files.Indexed):
        for path in (tmp_path / "pipe.npz", tmp_path / "none.npz", tmp_path):
            with pytest.raises(InputError, match="cannot read"):
                read(path)
    with pytest.raises(InputError, match="has no array images or arr_0; it has a"):
        numpy_files.rows(file(WHOLE), "images", "arr_0")
    rows = numpy_files.rows(file(WHOLE), "a")
    file(WHOLE[:150])
    with pytest.raises(InputError, match="cannot read"):
        list(rows.parts(1))


def test_what_is_packed_too_well_is_read_by_rows_alone(file, monkeypatch):
    monkeypatch.setattr(numpy_files, "SMALL", 50_000)
    zeros = np.zeros((1000, 100), np.uint8)
    path = file(npz({"a.npy": npy(zeros)}))
    with pytest.raises(InputError, match="would be 100128 bytes of arrays, unpacked from"):
        numpy_files.arrays(path)
    np.testing.assert_array_equal(np.concatenate(list(numpy_files.rows(path, "a").parts(300))), zeros)
    unpacked = file(npz({"a.npy": npy(zeros)}, zipfile.ZIP_STORED))
    np.testing.assert_array_equal(numpy_files.arrays(unpacked)["a"], zeros)
    assert numpy_files.arrays(file(npz({"a.npy": npy(zeros[:300])})))["a"].shape == (300, 100)


def test_files_damaged_at_random_are_read_or_refused(file):
    """Seed 0; every fourth truncation, and 150 files of each kind with one to three bytes changed."""
    rng, said, tried = np.random.default_rng(0), [], 0
    readers = (numpy_files.arrays, lambda path: list(numpy_files.rows(path, "a").parts(3)), numpy_files.Indexed)
    for whole in (npz({"a.npy": npy(A)}), WHOLE, npy(A)):
        damaged = [whole[:n] for n in range(0, len(whole), 4)]
        for _ in range(150):
            content = bytearray(whole)
            for at in rng.integers(len(whole), size=rng.integers(1, 4)):
                content[at] = rng.integers(256)
            damaged.append(bytes(content))
        for content in damaged:
            path = file(content)
            for read in readers:
                try:
                    read(path)
                except InputError as error:
                    said.append(str(error))
                tried += 1
    assert tried // 2 < len(said) < tried
    assert not any("\n" in message for message in said)
