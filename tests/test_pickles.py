"""Pickles of strangers: everything that data sets hold is read, and nothing in them is run."""

import copyreg
import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storydalle.files.pickles import load_pickle, multi_hot, text_of


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Plain:
    """Pickles without a call, as a new object of its class."""


class Own(np.ndarray):
    """A class that only its author has."""


def saved(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def object_npy(path: Path, array: np.ndarray, body: bytes) -> Path:
    """An .npy file with the header of ``array`` and any pickle behind it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    path.write_bytes(stream.getvalue() + body)
    return path


# ---------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("protocol", range(6))
def test_what_data_sets_hold_is_read_by_every_protocol(tmp_path: Path, protocol: int):
    content = {
        "list": ["a", b"b", 1, 2.5, None, True, (1, 2)],
        "labels": np.array([1, 0, 1]),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros(0),
        "bytes": np.array([b"one", b"three"]),
        "big endian": np.arange(3, dtype=">i4"),
        "number": np.float32(0.5),
        "text": np.str_("x"),
        "ordered": OrderedDict(a=1),
        "no bytes": b"",
    }
    loaded = load_pickle(saved(tmp_path / "x.pkl", content, protocol))
    assert list(loaded) == list(content)
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            assert loaded[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
            np.testing.assert_array_equal(loaded[key], value)
        else:
            assert loaded[key] == value


@pytest.mark.parametrize("array", [np.arange(4), np.array([b"a/1.png"]), np.array([["a/1.png", "b"]]), np.float64(3)])
def test_arrays_of_numbers_and_strings_need_no_pickle(tmp_path: Path, array: Any):
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(load_pickle(tmp_path / "x.npy"), array)


def test_a_dictionary_in_a_0_d_array_comes_out_as_itself(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.array({"ep/1": ["A caption.", "Another."]}, dtype=object), allow_pickle=True)
    assert load_pickle(tmp_path / "x.npy") == {"ep/1": ["A caption.", "Another."]}


def test_ragged_lists_in_an_object_array_are_read(tmp_path: Path):
    ragged = np.empty(3, dtype=object)
    ragged[:] = [[0, 1, 2], [3], [4, 5]]
    np.save(tmp_path / "x.npy", ragged, allow_pickle=True)
    loaded = load_pickle(tmp_path / "x.npy")
    assert type(loaded) is np.ndarray and loaded.tolist() == [[0, 1, 2], [3], [4, 5]]


def test_a_large_object_array_of_bytes_and_strings_is_read(tmp_path: Path):
    mixed = np.empty((20000, 4), dtype=object)
    mixed[:] = "Pororo_ENGLISH1_1_ep1/1.png"
    mixed[::2] = b"Pororo_ENGLISH1_1_ep1/2.png"
    np.save(tmp_path / "x.npy", mixed, allow_pickle=True)
    loaded = load_pickle(tmp_path / "x.npy")
    assert loaded.shape == (20000, 4)
    assert {type(entry) for entry in loaded.ravel()} == {bytes, str}
    assert (loaded == mixed).all()


def python2_string(text: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(text)) + text


def python2_array(descr: bytes, shape: bytes, state: bytes) -> bytes:
    """Opcodes of an array as Python 2 and its numpy wrote them (protocol 2)."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
    return made + b"cnumpy\ndtype\nU" + bytes([len(descr)]) + descr + b"K\x00K\x01\x87R" + state


LITTLE = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
OBJECTS = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"


def test_a_python_2_dictionary_of_arrays_is_read_and_its_captions_are_repaired(tmp_path: Path):
    vector = python2_array(b"f8", b"K\x02\x85", LITTLE) + b"\x89" + python2_string(struct.pack("<2d", 0.5, -2)) + b"tb"
    caption = python2_string("Pororo«s café".encode())
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02}(U\x06vector" + vector + b"U\x07caption" + caption + b"u.")
    loaded = load_pickle(path)
    assert loaded["vector"].tolist() == [0.5, -2.0]
    assert loaded["caption"] != "Pororo«s café"
    assert text_of(loaded["caption"]) == "Pororo«s café"


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_a_python_2_npy_file_is_read(tmp_path: Path):
    """Its header counts in long integers."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (2L,), }"
    header += b" " * (-(10 + len(header) + 1) % 16) + b"\n"
    body = b"\x80\x02" + python2_array(b"O8", b"K\x02\x85", OBJECTS) + b"\x89](U\x04ep/1U\x04ep/2etb."
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body)
    assert load_pickle(path).tolist() == ["ep/1", "ep/2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"ep/1.png", "ep/1.png"),
        (np.bytes_(b"ep/1.png"), "ep/1.png"),
        ("plain", "plain"),
        ("caf\u00c3\u00a9", "café"),
        ("café", "café"),
        ("雪", "雪"),
        (b"caf\xe9", "café"),
        ("caf\u00e9".encode(), "café"),
    ],
)
def test_strings_are_what_their_author_wrote(value: Any, text: str):
    assert text_of(value) == text and type(text_of(value)) is str


@pytest.mark.parametrize("value", [None, 3, ["a"], np.array(["a"])])
def test_what_is_no_string_is_refused_as_one(value: Any):
    with pytest.raises(ValueError, match="is no string"):
        text_of(value)


@pytest.mark.parametrize("value", [[0, 1, 1], (0, 1, 1), np.array([0.0, 1, 1]), np.array([False, True, True])])
def test_rows_of_zeros_and_ones_come_in_any_type(value: Any):
    assert multi_hot(value, 3) == (0, 1, 1)


@pytest.mark.parametrize(
    "value", [[0, 1], [0, 1, 2], [0, 0.5, 1], [[0, 1, 1]], [[0], [1, 1], 1], ["0", "1", "1"], None]
)
def test_what_is_no_row_of_zeros_and_ones_is_refused_as_one(value: Any):
    with pytest.raises(ValueError, match="is no row of 3 zeros and ones"):
        multi_hot(value, 3)


# ------------------------------------------------------------------------------------- what is refused

MARK = "it_ran"
ATTACKS: dict[str, tuple[Any, str]] = {
    "os.system": (Calls(os.system, f"touch {MARK}"), f"{os.system.__module__}.system"),
    "builtins.eval": (Calls(eval, f"open({MARK!r}, 'w')"), "builtin(s|__).eval"),
    "builtins.getattr": (Calls(getattr, Calls(__import__, "os"), "system"), "builtin(s|__)."),
    "builtins.open": (Calls(open, MARK, "w"), "open"),
    "numpy.load": (Calls(np.load, MARK), "numpy.load"),
    "numpy.save": (Calls(np.save, MARK, 1), "numpy.save"),
    "numpy.fromfile": (Calls(np.fromfile, MARK), "fromfile"),
    "numpy.frombuffer": (Calls(np.frombuffer, b"12345678"), "frombuffer"),
    "copyreg": (Calls(copyreg._reconstructor, dict, object, None), "copy_?reg._reconstructor"),  # type: ignore[attr-defined]
    "an object": (Plain(), "(Plain|_reconstructor)"),
    "a foreign class": (np.zeros(2).view(Own), "Own"),
    "numpy.matrix": (np.zeros((2, 2)).view(np.matrix), "matrix"),
    "numpy.ma": (np.ma.masked_array([1, 2], [0, 1]), "numpy.ma"),
    "a record array": (np.zeros(2, dtype=[("a", "f8")]).view(np.recarray), "recarray"),
    "pickle.loads": (Calls(pickle.loads, b"N."), "pickle.loads"),
    "a codec": (Calls(__import__("_codecs").encode, "text", "rot13"), "rot13"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_that_asks_for_code_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, protocol: int
):
    monkeypatch.chdir(tmp_path)
    content, named = ATTACKS[attack]
    with pytest.raises(ValueError, match=rf"x\.pkl is refused: .*{named}"):
        load_pickle(saved(tmp_path / "x.pkl", {"ep/1": [content]}, protocol))
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_inside_an_object_array_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str):
    monkeypatch.chdir(tmp_path)
    content, named = ATTACKS[attack]
    array = np.empty(2, dtype=object)
    array[1] = [content]
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"x\.npy is refused: .*{named}"):
        load_pickle(tmp_path / "x.npy")
    assert not (tmp_path / MARK).exists()


def test_the_attacks_do_run_where_nothing_refuses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Otherwise the tests above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(saved(tmp_path / "x.pkl", ATTACKS["os.system"][0]).read_bytes())
    assert (tmp_path / MARK).exists()


def test_a_class_asked_for_by_opcodes_of_old_is_refused(tmp_path: Path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"(S'touch it_ran'\nios\nsystem\n.")
    with pytest.raises(ValueError, match=r"refused: it asks for os\.system"):
        load_pickle(path)


def array_with(dtype: Any, content: Any, shape: tuple[int, ...] = (1,)) -> Any:
    """A pickle of an array whose state is made by hand."""

    class Array:
        def __reduce__(self) -> Any:
            reconstruct = np.zeros(0).__reduce__()[0]
            return reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content)

    return Array()


def dtype_with(code: str, *state: Any) -> Any:
    class DType:
        def __reduce__(self) -> Any:
            return np.dtype, (code, False, True), state

    return DType()


POINTER = struct.pack("<Q", 0x4141414141414141)


@pytest.mark.parametrize(
    ("dtype", "content", "why"),
    [
        (dtype_with("O8", 3, "|", None, None, None, -1, -1, 0), POINTER, "no readable pickle"),
        (dtype_with("V8", 3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0), POINTER, "array of 'V8'"),
        (dtype_with("f8", 3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0), POINTER, "fields"),
        (dtype_with("f8", 3, "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0), POINTER, "fields"),
    ],
)
def test_bytes_are_never_taken_for_pointers(tmp_path: Path, dtype: Any, content: bytes, why: str):
    """numpy trusts a pickled dtype's flags: with false ones it would follow an address out of the file."""
    with pytest.raises(ValueError, match=why):
        load_pickle(saved(tmp_path / "x.pkl", [array_with(dtype, content)]))


def test_a_false_size_of_a_dtype_is_not_believed(tmp_path: Path):
    array = array_with(dtype_with("S2", 3, "|", None, None, None, -5, 1, 0), b"ab")
    assert load_pickle(saved(tmp_path / "x.pkl", [array]))[0].tolist() == [b"ab"]


def test_a_size_that_no_memory_holds_is_an_error_and_no_crash(tmp_path: Path):
    array = array_with(np.dtype("f8"), b"12345678", (1 << 50,))
    with pytest.raises(ValueError, match="no readable pickle"):
        load_pickle(saved(tmp_path / "x.pkl", [array]))


def test_an_array_of_another_shape_than_its_header_says_is_refused(tmp_path: Path):
    path = object_npy(tmp_path / "x.npy", np.empty(3, dtype=object), pickle.dumps(np.empty(2, dtype=object)))
    with pytest.raises(ValueError, match="no array of shape \\(3,\\)"):
        load_pickle(path)


# ------------------------------------------------------------------------------------- what is damaged


@pytest.mark.parametrize("name", ["x.pkl", "x.npy", "numbers.npy"])
def test_a_truncated_file_is_named_at_every_length(tmp_path: Path, name: str):
    if name == "numbers.npy":
        np.save(tmp_path / name, np.arange(5))
    elif name == "x.npy":
        np.save(tmp_path / name, np.array({"ep/1": ["A caption."]}, dtype=object), allow_pickle=True)
    else:
        saved(tmp_path / name, {"ep/1": np.arange(3)})
    whole = (tmp_path / name).read_bytes()
    for length in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"{name} (is truncated|is no readable pickle)"):
            load_pickle(tmp_path / name)
    (tmp_path / name).write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="is truncated: copy it again"):
        load_pickle(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"\x89PNG\r\n", b"<html>", b"\x93NUMPY\x09\x00"],
)
def test_a_file_of_another_kind_is_no_pickle(tmp_path: Path, content: bytes):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npy is (no readable pickle|truncated)"):
        load_pickle(tmp_path / "x.npy")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"x\.npy is missing"):
        load_pickle(tmp_path / "x.npy")
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(ValueError, match=r"x\.npy cannot be read: Is a directory"):
        load_pickle(tmp_path / "x.npy")
