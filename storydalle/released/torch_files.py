"""Files of ``torch.save``, read without running any of their code: weights, and whole pickled modules.

Both formats are read: the zip archive (torch >= 1.6) and the older stream of pickles. A pickle names the classes and
functions to call. Those that tensors need are replaced by our own. Classes of networks and of training programs are
replaced by inert placeholders, which keep their state and do nothing. Everything else is refused.

Tensors are read one at a time, when they are needed.
"""

import io
import math
import mmap
import pickle
import struct
import zipfile
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from storydalle.files.pickle_claims import Refused, check_claims, check_tree, contents_of

LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_VERSION = 1001
MAX_EXPANDED = 2**20  # numbers of a tensor that tells those of its storage several times
MAX_TREE_BYTES = 512 * 2**20  # of the pickle of an archive, which holds no numbers of tensors
# How a zip archive fails: damaged, cut, compressed by another way, encrypted, with a name that is no text.
DAMAGED = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError)
STORAGES = {
    **{"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
}
# Answered by placeholders: all of these packages' modules, and single names of others.
INERT_PACKAGES = ("torch.nn", "dall_e", "pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "numpy")
INERT_NAMES = frozenset(
    {
        *(("torch", name) for name in ("device", "Size", "Tensor")),
        *(("argparse", "Namespace"), ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("enum", "Enum")),
        *(("collections", "defaultdict"), ("functools", "partial"), ("typing", "Any"), ("copyreg", "_reconstructor")),
        *((module, "object") for module in ("builtins", "__builtin__")),
        *((module, name) for module in ("builtins", "__builtin__") for name in ("set", "int", "float", "list", "dict")),
        ("__builtin__", "long"),  # int as protocol 2 calls it
        *(("torch", str(dtype).removeprefix("torch.")) for dtype in STORAGES.values()),
        ("_codecs", "encode"),
    }
)
# What a file is when it is none of ours, by how it begins.
LOOKS = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"version https://git-lfs": "a pointer of git LFS, not the file itself: fetch it with git lfs pull",
    b"<": "a web page, not the file itself: download it again",
    b"{": "a json file",
    b"\x89HDF": "an HDF5 file",
}


class ForeignFile(ValueError):
    """A file of another kind than expected; the message names the file.

    ``path`` is given if the file could be read but contains something else, so that its real format can be recognised.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class Storage(NamedTuple):
    """A row of numbers in a file; ``start`` is where a view of it begins."""

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0


class StoredTensor(NamedTuple):
    """A tensor that has not been read from its file yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


class Inert:
    """A placeholder for an object of another class; ``state`` is the state from its pickle."""

    asked = ""
    state: object

    def __new__(cls, *args: object, **kwargs: object) -> "Inert":
        made = object.__new__(cls)
        made.__dict__["state"] = None
        return made

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.__dict__["state"] = state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass

    def add(self, value: object) -> None:
        pass


def _sizes(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(type(size) is int and size >= 0 for size in values)


def _tensor(storage: object, offset: object, shape: object, stride: object, *rest: object) -> StoredTensor:
    if not (isinstance(storage, Storage) and type(offset) is int and offset >= 0 and _sizes(shape) and _sizes(stride)):
        raise Refused("it has a tensor without a storage, or of an impossible shape")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 not in shape and storage.start + last >= storage.numel:
        raise Refused(f"it has a tensor {shape} that reaches beyond its storage of {storage.numel} numbers")
    if math.prod(shape) > max(storage.numel, MAX_EXPANDED):
        raise Refused(f"it has a tensor {shape} of a storage of {storage.numel} numbers")
    return StoredTensor(storage, storage.start + offset, shape, stride)


def _parameter(tensor: object, *rest: object) -> object:
    return tensor


_ANSWERS: dict[tuple[str, str], Callable[..., object] | torch.dtype] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}


def _inside(value: object) -> Iterable[object]:
    """The content to walk through; of a placeholder only a network's parts, since configurations refer to parents."""
    if not isinstance(value, Inert):
        return contents_of(value)
    return [part for kind in ("_parameters", "_buffers", "_modules") if (part := _part(value.state, kind))]


class _StoredTensorUnpickler(pickle.Unpickler):
    def __init__(self, stream: io.BufferedIOBase, storage: Callable[..., Storage]) -> None:
        super().__init__(stream, encoding="latin1")
        self.storage, self.placeholders = storage, dict[tuple[str, str], type[Inert]]()

    def find_class(self, module: str, name: str) -> object:
        asked = (module, name)
        if asked in _ANSWERS:
            return _ANSWERS[asked]
        if asked not in INERT_NAMES and not any(
            module == each or module.startswith(f"{each}.") for each in INERT_PACKAGES
        ):
            raise Refused(f"it asks for {module}.{name}")
        return self.placeholders.setdefault(asked, type("Inert", (Inert,), {"asked": f"{module}.{name}"}))

    def persistent_load(self, saved: object) -> object:
        """A storage, or the class of a pickled network, which old files store with its source code."""
        match saved:
            case ("storage", torch.dtype() as dtype, str() as key, _, int() as numel, *view) if numel >= 0:
                return self.storage(key, dtype, numel, *view)
            case ("module", type() as placeholder, *_) if issubclass(placeholder, Inert):
                return placeholder
        raise Refused(f"it refers to {str(saved)[:80]}, which is no storage")


class TorchFile(ABC):
    """An open file: ``content`` is its tree, with ``StoredTensor`` and ``Inert`` objects; ``read`` reads the numbers.

    Tensors of the same storage that are read one after the other read it only once.
    """

    content: object

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: tuple[str, Tensor] | None = None

    def read(self, tensor: StoredTensor) -> Tensor:
        """The tensor as it was saved; ForeignFile if the file is truncated or damaged."""
        storage = tensor.storage
        if tensor.numel == 0:
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        if self.last is None or self.last[0] != storage.key:
            self.last = None  # before the next one is read
            self.last = (storage.key, torch.frombuffer(self.storage_bytes(storage.key), dtype=storage.dtype))
        return self.last[1].as_strided(tensor.shape, tensor.stride, tensor.offset)

    @abstractmethod
    def storage_bytes(self, key: str) -> bytearray:
        """All bytes of a storage."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Archive(TorchFile):
    """The zip format: ``NAME/data.pkl``, and ``NAME/data/KEY`` for every storage, none of them compressed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.archive = zipfile.ZipFile(path)
        trees = [info for info in self.archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(trees) != 1:
            raise ForeignFile(f"{path} is a zip archive without weights of torch in it (no data.pkl)")
        self.root = trees[0].filename.removesuffix("data.pkl")
        order = f"{self.root}byteorder"
        if order in self.archive.namelist() and self._plain(order, len("little")) != b"little":
            raise ForeignFile(f"{path} was saved by a machine of another byte order; save it again on this kind")
        if trees[0].file_size > MAX_TREE_BYTES or trees[0].compress_type != zipfile.ZIP_STORED:
            raise ForeignFile(
                f"{path} holds a tree of {trees[0].file_size} bytes, or a compressed one: torch saves neither"
            )
        tree = self.archive.read(trees[0])
        check_claims(tree)
        self.content = _StoredTensorUnpickler(io.BytesIO(tree), self._storage).load()
        check_tree(self.content, len(tree), _inside)

    def _plain(self, name: str, num_bytes: int) -> bytes:
        """The content of a small file of the archive; empty for a large or compressed one."""
        info = self.archive.getinfo(name)
        is_plain = info.compress_type == zipfile.ZIP_STORED and info.file_size == num_bytes
        return self.archive.read(info) if is_plain else b""

    def _storage(self, key: str, dtype: torch.dtype, numel: int, *view: object) -> Storage:
        try:
            info = self.archive.getinfo(f"{self.root}data/{key}")
        except KeyError:
            raise Refused(f"its storage {key!r} is missing: the file is damaged") from None
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != numel * dtype.itemsize:
            raise Refused(f"its storage {key!r} has {info.file_size} bytes, or compressed ones, for {numel} numbers")
        return Storage(key, dtype, numel)

    def storage_bytes(self, key: str) -> bytearray:
        try:
            return bytearray(self.archive.read(f"{self.root}data/{key}"))
        except DAMAGED as error:
            raise ForeignFile(f"{self.path} is truncated or damaged: copy it again") from error

    def close(self) -> None:
        self.archive.close()


class _Stream(TorchFile):
    """The older format: pickles one after the other, then the storages, each its length and its numbers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.file = path.open("rb")
        self.storages: dict[str, Storage] = {}
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            self._read_trees(content)

    def _read_trees(self, content: mmap.mmap) -> None:
        self._load(content)  # the number by which the format is known
        version, system = self._load(content), self._load(content)
        if version != LEGACY_VERSION or not isinstance(system, dict) or not system.get("little_endian", True):
            raise ForeignFile(f"{self.path} was saved by a torch of another kind (version {version!r}, {system!r})")
        self.content = self._load(content)
        keys = self._load(content)
        self.places = dict(self._found(keys))

    def _load(self, content: mmap.mmap) -> object:
        """The next of the pickles."""
        start = self.file.tell()
        end = check_claims(content, start)
        tree = _StoredTensorUnpickler(io.BytesIO(content[start:end]), self._storage).load()
        check_tree(tree, end - start, _inside)
        self.file.seek(end)
        return tree

    def _storage(self, key: str, dtype: torch.dtype, numel: int, view: object = None) -> Storage:
        known = self.storages.setdefault(key, Storage(key, dtype, numel))
        if known != (key, dtype, numel, 0):
            raise Refused(f"its storage {key!r} has two lengths or two kinds of numbers")
        match view:
            case None:
                return known
            case (str(), int() as start, int() as length) if min(start, length) >= 0 and start + length <= numel:
                return known._replace(start=start)
        raise Refused(f"it has a view {view!r} of a storage of {numel} numbers")

    def _found(self, keys: object) -> Iterator[tuple[str, int]]:
        """The place of the numbers of each storage."""
        if not isinstance(keys, list) or set(keys) != set(self.storages):
            raise Refused("its list of storages is not that of its tensors")
        end = self.path.stat().st_size
        for key in keys:
            (numel,) = struct.unpack("<q", self.file.read(8).ljust(8, b"\xff"))
            place, storage = self.file.tell(), self.storages[key]
            if numel != storage.numel or place + numel * storage.dtype.itemsize > end:
                raise EOFError
            yield key, place
            self.file.seek(place + numel * storage.dtype.itemsize)

    def storage_bytes(self, key: str) -> bytearray:
        storage = self.storages[key]
        found = bytearray(storage.numel * storage.dtype.itemsize)
        self.file.seek(self.places[key])
        if self.file.readinto(found) != len(found):
            raise ForeignFile(f"{self.path} is truncated or damaged: copy it again")
        return found

    def close(self) -> None:
        self.file.close()


def open_torch_file(path: Path) -> TorchFile:
    """Open a file of ``torch.save`` of either format.

    Raises ForeignFile, naming the file, if it is missing, truncated, of another kind, or needs anything but weights,
    modules and objects of training programs. None of its code is executed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(LEGACY_START) + 16)
        if start.startswith(b"PK"):
            return _Archive(path)
        if start.startswith(LEGACY_START):
            return _Stream(path)
    except FileNotFoundError as error:
        raise ForeignFile(f"{path} is missing") from error
    except OSError as error:
        raise ForeignFile(f"{path} cannot be read: {error.strerror or error}") from error
    except Refused as error:
        raise ForeignFile(f"{path} is refused: {error}; weights need tensors, dictionaries and numbers only") from error
    except ForeignFile:
        raise
    except Exception as error:
        if isinstance(error, EOFError | zipfile.BadZipFile) or "truncated" in str(error):
            raise ForeignFile(f"{path} is truncated or damaged: copy it again") from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ForeignFile(f"{path} is no readable file of torch: {reason}") from error
    raise ForeignFile(f"{path} is no file of torch{looks_like(start)}")


def looks_like(start: bytes) -> str:
    """The kind of a file by its first bytes, as the end of a sentence."""
    for sign, kind in LOOKS.items():
        if start.lstrip().startswith(sign):
            return f"; it looks like {kind}"
    if start[8:9] == b"{":
        return "; it looks like a safetensors file"
    return "; it is a pickle, without tensors" if start.startswith(b"\x80") else ""


def tensors_of(tree: object) -> dict[str, StoredTensor]:
    """The tensors of a state dict, or of a pickled network, by their names there; empty for anything else."""
    if isinstance(tree, Inert):
        return dict(_module_tensors(tree.state, ""))
    if not isinstance(tree, Mapping):
        return {}
    return {name: value for name, value in tree.items() if isinstance(name, str) and isinstance(value, StoredTensor)}


def _module_tensors(state: object, prefix: str) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors of a module and its submodules; ``check_tree`` has limited the depth."""
    for kind in ("_parameters", "_buffers"):
        for name, value in _part(state, kind).items():
            if isinstance(value, StoredTensor):
                yield f"{prefix}{name}", value
    for name, module in _part(state, "_modules").items():
        if isinstance(module, Inert):
            yield from _module_tensors(module.state, f"{prefix}{name}.")


def _part(state: object, kind: str) -> Mapping[object, object]:
    found = state.get(kind) if isinstance(state, Mapping) else None
    return found if isinstance(found, Mapping) else {}
