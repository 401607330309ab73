"""Pickles that promise more than they hold: refused before anything is set aside for them, never a dead process."""

import io
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storydalle.files.pickle_claims import check_claims, check_tree
from storydalle.files.pickles import load_pickle
from storydalle.released.torch_files import LEGACY_START, open_torch_file
from tests.test_pickles import LITTLE, OBJECTS, python2_array

MEMORY = 2 * 2**20  # bytes
HEADER = b"\x80\x04"
HUGE = struct.pack("<Q", 2**31)
# Opcodes by what they claim; each file is a few bytes long.
CLAIMS = {
    "a place of the memo": b"Nr\xff\xff\xff\x07.",
    "a place of the memo, in words": b"Np123456789\n.",
    "a place of the memo, after a minus": b"Np-5\n.",
    "text": b"\x8d" + HUGE,
    "bytes": b"\x8e" + HUGE,
    "an array of bytes": b"\x96" + HUGE,
    "a frame": b"\x95" + HUGE + b"N.",
    "a number": b"\x8b\xff\xff\xff\x7f",
    "a number of a negative length": b"\x8b\xff\xff\xff\xff.",
    "an old string": b"T\xff\xff\xff\x7f",
    "an old string of a negative length": b"T\xff\xff\xff\xff.",
    "a short text": b"\x8c\xff",
}


def torch_stream(content: bytes) -> bytes:
    """An old file of torch.save, up to the pickle of its content."""
    start = LEGACY_START + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    return start + content


def torch_archive(content: bytes) -> bytes:
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data.pkl", content)
    return stream.getvalue()


def object_npy(content: bytes) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": (1,)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


WAYS = {
    "x.pkl": (bytes, load_pickle),
    "x.npy": (object_npy, load_pickle),
    "x.pt": (torch_stream, open_torch_file),
    "x.ckpt": (torch_archive, open_torch_file),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_few_bytes_take_no_memory_whatever_they_claim(tmp_path: Path, name: str, claim: str) -> None:
    wrap, read = WAYS[name]
    (tmp_path / name).write_bytes(wrap(HEADER + CLAIMS[claim]))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"{name} is (refused|truncated|no readable)"):
            read(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("nested", [b")" + b"\x85" * 200_000, b")" + b"q\x00h\x00\x85" * 200_000])
def test_tuples_in_tuples_are_refused_before_they_are_hashed(tmp_path: Path, name: str, nested: bytes) -> None:
    """As the key of a dictionary they would end the process."""
    wrap, read = WAYS[name]
    (tmp_path / name).write_bytes(wrap(HEADER + b"}" + nested + b"Ns."))
    with pytest.raises(ValueError, match="nests tuples 101 deep"):
        read(tmp_path / name)


SHORT = {
    "5000 objects of a list of one": python2_array(b"O8", b"M\x88\x13\x85", OBJECTS) + b"\x89]Natb",
    "no object of a list of none": python2_array(b"O8", b"K\x01\x85", OBJECTS) + b"\x89]tb",
    "objects of text": python2_array(b"O8", b"K\x03\x85", OBJECTS) + b"\x89U\x03abctb",
    "many numbers of a few bytes": python2_array(b"f8", b"J\xff\xff\xff\x7f\x85", LITTLE) + b"\x89U\x08abcdefghtb",
    "numbers of a list": python2_array(b"f8", b"K\x01\x85", LITTLE) + b"\x89]K\x01atb",
    "a negative shape": python2_array(b"O8", b"J\xff\xff\xff\xff\x85", OBJECTS) + b"\x89]tb",
    "a shape of text": python2_array(b"O8", b"U\x01a\x85", OBJECTS) + b"\x89]Natb",
    "a shape beyond 64 bits": python2_array(b"O8", b"\x8a\x09" + b"\xff" * 8 + b"\x7f\x85", OBJECTS) + b"\x89]Natb",
}


@pytest.mark.parametrize("what", SHORT)
def test_an_array_is_as_large_as_what_it_is_filled_with(tmp_path: Path, what: str) -> None:
    """numpy would read on behind the end of a list."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + SHORT[what] + b".")
    with pytest.raises(ValueError, match=r"x\.pkl is no readable pickle: ValueError: it (fills|has) an array"):
        load_pickle(path)


def test_an_array_that_was_filled_twice_keeps_its_size(tmp_path: Path) -> None:
    again = b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R" + OBJECTS + b"\x89]NatbN0"
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + python2_array(b"O8", b"K\x01\x85", OBJECTS) + b"\x89]Natb" + again + b".")
    with pytest.raises(ValueError, match="it fills an array"):
        load_pickle(path)


def test_the_header_of_an_array_of_numbers_is_not_believed(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (2**33,)})
    (tmp_path / "x.npy").write_bytes(stream.getvalue() + bytes(800))
    tracemalloc.start()
    with pytest.raises(ValueError, match="truncated"):
        load_pickle(tmp_path / "x.npy")
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()


def told_again(times: int) -> Any:
    value: Any = ["a"]
    for _ in range(times):
        value = [value] * 10
    return value


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [(told_again(20), "few objects"), (cycle(), "inside itself"), (deep(300), "nested more than 100 deep")],
)
def test_what_no_walk_would_end_in_is_refused(tmp_path: Path, value: Any, why: str) -> None:
    for protocol in (1, 4):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"key": value}, protocol))
        with pytest.raises(ValueError, match=rf"x\.pkl is refused: .*{why}"):
            load_pickle(tmp_path / "x.pkl")


def test_what_libraries_write_passes_at_every_protocol() -> None:
    objects = np.empty((3, 2), dtype=object)
    objects[:] = [["a", b"b"], [1, 2.5], [None, ("x", ("y",))]]
    shared = ["one list"]
    values = [
        {"key": [1, -1, 10**50, 2.5, True, None, "x" * 300, "é" * 70_000, b"y" * 300, (), (1, 2), (1, 2, 3, 4)]},
        [np.arange(40.0), objects, np.array(["a", "bc"]), np.float32(2), np.zeros((0, 3))],
        OrderedDict(a=shared, b=shared, c={1, 2}, d=frozenset((1, (2, 3)))),
        [{"number": i, "pair": (i, (i,))} for i in range(300)],
    ]
    for value in values:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            content = pickle.dumps(value, protocol)
            assert check_claims(b"before" + content + b"after", 6) == len(content) + 6
            check_tree(pickle.loads(content), len(content))
