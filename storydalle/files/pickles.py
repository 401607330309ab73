"""Read pickled arrays and dictionaries from untrusted files without running any of their code."""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from storydalle.files.pickle_claims import Refused, check_claims, check_tree

_PLAIN_CODE = re.compile(r"[|<>=]?[?biufcSUO]\d*")  # bools, numbers, bytes, strings, objects: nothing with fields


class _DType:
    """Stands for a dtype while its pickle is read.

    numpy's own ``__setstate__`` does not check fields, sizes and flags: raw bytes could be taken for pointers to
    objects.
    """

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not _PLAIN_CODE.fullmatch(code):
            raise Refused(f"it asks for an array of {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # of a stranger's
        _, order, subdtype, names, fields, *_ = state
        if any(part is not None for part in (subdtype, names, fields)):
            raise Refused(f"it asks for an array with the fields {names!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array whose pickled state names its dtype by a ``_DType``."""

    def __setstate__(self, state: tuple[Any, ...], /) -> None:
        *version, shape, dtype, is_fortran, content = state
        plain = _checked(dtype)
        _check_filled(shape, plain, content)
        super().__setstate__((*version, shape, plain, is_fortran, content))


def _checked(dtype: object) -> np.dtype:
    if not isinstance(dtype, _DType):
        raise Refused(f"it has {type(dtype).__name__} in the place of a dtype")
    return dtype.dtype


def _check_filled(shape: object, dtype: np.dtype, content: object) -> None:
    """Raise ValueError if an array and its content differ in size: numpy would read beyond the end of a list."""
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"it has an array of the shape {str(shape)[:80]}")
    kind = list if dtype.hasobject else bytes | str  # Python 2's bytes are read as text
    if not isinstance(content, kind):
        raise ValueError(f"it fills an array of {dtype} with {type(content).__name__}")
    needed = math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize)
    if len(content) != needed:
        raise ValueError(f"it fills an array of the shape {shape} with {len(content)} of {needed} entries or bytes")


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    if subtype is not _NDARRAY:
        raise Refused(f"it has {subtype!r} in the place of numpy.ndarray")
    return _Array((0,), "b")


def _frombuffer(content: object, dtype: object, *layout: object) -> np.ndarray:
    array: np.ndarray = import_module("numpy._core.numeric")._frombuffer(content, _checked(dtype), *layout)
    return array


def _scalar(dtype: object, content: object) -> object:
    if _checked(dtype).hasobject:
        raise Refused("it has an object in the place of a number")
    return import_module("numpy._core.multiarray").scalar(_checked(dtype), content)


def _encode_latin1(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"it asks for _codecs.encode with {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_NDARRAY = "numpy.ndarray"  # a mere token: the class itself could be called
_ALLOWED: dict[tuple[str, str], Callable[..., object] | str] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): OrderedDict,
    # How protocols 1 and 2 write bytes.
    ("_codecs", "encode"): _encode_latin1,
    ("__builtin__", "bytes"): _no_bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise Refused(f"it asks for {module}.{name}") from None


def load_pickle(path: Path) -> object:
    """The content of a ``.pkl`` or a pickled ``.npy`` file; a 0-d object array is its one object.

    Strings of Python 2 are read as latin-1 (``text_of`` repairs them). Raises ValueError, naming the file, for a
    missing, foreign or truncated file, and for a pickle that asks for anything but arrays, dictionaries, lists,
    strings, bytes and numbers.
    """
    try:
        return _read(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except Refused as error:
        raise ValueError(f"{path} is refused: {error}; data sets need arrays, dicts, lists and strings only") from error
    except Exception as error:
        if isinstance(error, EOFError) or "truncated" in str(error) or str(error).startswith("EOF"):
            raise ValueError(f"{path} is truncated: copy it again") from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path} is no readable pickle: {reason}") from error


def array_of(content: bytes) -> np.ndarray:
    """The array of numbers or texts of a ``.npy`` file; raises ValueError or EOFError for anything else.

    (numpy would allocate the size in the header before it notices that the file is shorter, and would open archives.)
    """
    stream = io.BytesIO(content)
    shape, dtype = read_header(stream)
    if math.prod(shape) * dtype.itemsize > len(content) - stream.tell():
        raise EOFError("it is shorter than its header says")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def read_header(stream: io.BufferedIOBase) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and kind of the numbers of a ``.npy`` file, up to which the stream is read; ValueError for another file."""
    try:
        is_first = np.lib.format.read_magic(stream) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except Exception as error:  # Python's own parser reads it
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    return shape, dtype


def text_of(value: object) -> str:
    """A string of a pickle as its author wrote it: bytes, and Python 2 strings read as latin-1, are decoded as UTF-8.

    Raises ValueError for anything but strings and bytes.
    """
    if not isinstance(value, str | bytes):
        raise ValueError(f"{value!r} is no string")
    try:
        return (value.encode("latin-1") if isinstance(value, str) else value).decode("utf-8")
    except UnicodeError:
        return str(value) if isinstance(value, str) else value.decode("latin-1")


def multi_hot(value: object, size: int) -> tuple[int, ...]:
    """A row of zeros and ones of a pickle; raises ValueError for anything else."""
    try:
        row = np.asarray(value)
    except ValueError:  # lists of several lengths
        row = np.empty(0)
    if row.shape != (size,) or row.dtype.kind not in "biuf" or not set(row.tolist()) <= {0, 1}:
        raise ValueError(f"{value!r} is no row of {size} zeros and ones")
    return tuple(int(entry) for entry in row)


def _read(content: bytes) -> object:
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        return _unpickle(content, 0)
    stream = io.BytesIO(content)
    shape, dtype = read_header(stream)
    if not dtype.hasobject:
        return array_of(content)
    array = _unpickle(content, stream.tell())
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise Refused(f"its content is no array of shape {shape}, as its header says")
    return array.item() if array.shape == () else array


def _unpickle(content: bytes, start: int) -> object:
    check_claims(content, start)
    loaded = _Unpickler(io.BytesIO(content[start:]), encoding="latin1").load()
    loaded = np.asarray(loaded) if isinstance(loaded, _Array) else loaded
    check_tree(loaded, len(content))
    return loaded
