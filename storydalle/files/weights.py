"""Safetensors files of a model, one or several with an index, written and read a tensor at a time.

So memory holds one tensor instead of the model, or the model without a second copy of its file.

The format is the library's (huggingface/safetensors): eight bytes with the length of a JSON header, the header, and the
numbers one after the other. The library itself needs all tensors at once.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from storydalle.files.json_values import as_object
from storydalle.files.reading import read_object
from storydalle.files.whole import replaced_when_whole

TYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
    torch.bool: "BOOL",
}
UNTOLD_NUMBERS = 10**7  # that a network may have beside those of its file
FRAMEWORK = {"format": "pt"}  # without it transformers refuses a file


class NoRoom(OSError):
    """There is no disk space for files; the message says how large they are."""


class Planned(NamedTuple):
    """A tensor that is going to be written, before its numbers are read."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def check(self, value: Tensor) -> None:
        """Raise ValueError if a tensor is not as planned."""
        if value.dtype != self.dtype or tuple(value.shape) != self.shape:
            raise ValueError(
                f"{self.name} is {value.dtype} {tuple(value.shape)}, and was planned as {self.dtype} {self.shape}"
            )


def is_finite(value: Tensor, dtype: torch.dtype | None = None) -> bool:
    """True if every number of a tensor is finite, also in precision ``dtype`` (by default its own)."""
    if not value.is_floating_point() or not value.numel():
        return True
    largest = torch.finfo(dtype or value.dtype).max
    return all(abs(end.item()) <= largest for end in value.detach().aminmax())  # no copy, and nan is passed on


def check_finite(
    weights: Iterable[tuple[str, Tensor]], what: str, dtype_of: Callable[[str], torch.dtype] | None = None
) -> None:
    """Raise ValueError, naming the tensor, if one is not finite in its own precision or in that of its name."""
    for name, value in weights:
        if not is_finite(value, dtype_of(name) if dtype_of and value.is_floating_point() else None):
            what_is_wrong = "is too large for its precision" if is_finite(value) else "is not finite (nan or infinity)"
            raise ValueError(f"{what}: {name} {what_is_wrong}; take the model of an earlier checkpoint or run")


def parts(planned: Sequence[Planned], max_bytes: int) -> list[list[Planned]]:
    """Tensors in the given order, divided into files of at most ``max_bytes``, at least one tensor each."""
    found: list[list[Planned]] = [[]]
    size = 0
    for tensor in planned:
        if found[-1] and size + tensor.num_bytes > max_bytes:
            found.append([])
            size = 0
        found[-1].append(tensor)
        size += tensor.num_bytes
    return found


def write_safetensors(
    path: Path, planned: Sequence[Planned], read: Callable[[str], Tensor], metadata: Mapping[str, str] = FRAMEWORK
) -> None:
    """Write the tensors in order; each is read when its turn comes. The file gets its name when it is complete.

    Raises ValueError if a tensor is not as planned. (The library's own writer does not raise OSError for a full disk.)
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for tensor in planned:
        offsets = [start, start := start + tensor.num_bytes]
        header[tensor.name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of eight bytes
    with replaced_when_whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in planned:
            value = read(tensor.name)
            tensor.check(value)
            file.write(value.contiguous().flatten().view(torch.uint8).numpy().data)


def check_room(target: Path, num_bytes: int) -> None:
    """Raise FileExistsError if ``target`` exists, NoRoom if its disk has no space for ``num_bytes``."""
    if target.exists():
        raise FileExistsError(f"target={target} exists already: choose a new folder")
    parent = next(path for path in target.absolute().parents if path.exists())
    free = shutil.disk_usage(parent).free
    if free < 1.01 * num_bytes + 2**20:
        raise NoRoom(f"target={target} needs {num_bytes / 1e9:.1f} GB and {parent} has {free / 1e9:.1f} GB free")


def write_model(
    folder: Path, planned: Sequence[Planned], read: Callable[[str], Tensor], name: str, max_bytes: int
) -> list[Path]:
    """Write one file, or numbered files with the index that libraries read; return their paths."""
    files = parts(planned, max_bytes)
    if len(files) == 1:
        write_safetensors(folder / name, planned, read)
        return [folder / name]
    stem, _, ending = name.rpartition(".")
    names = [f"{stem}-{i:05}-of-{len(files):05}.{ending}" for i in range(1, len(files) + 1)]
    for file, tensors in zip(names, files, strict=True):
        write_safetensors(folder / file, tensors, read)
    places = {tensor.name: file for file, tensors in zip(names, files, strict=True) for tensor in tensors}
    total = sum(tensor.num_bytes for tensor in planned)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    with replaced_when_whole(folder / f"{name}.index.json") as table:
        table.write(json.dumps(index, indent=2).encode() + b"\n")
    return [folder / file for file in names]


class WithoutNumbers(TorchFunctionMode):
    """Networks built inside have shapes but no numbers: they need no memory and hardly any time."""

    def __enter__(self) -> "WithoutNumbers":
        self.device = torch.device("meta")
        self.device.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.device.__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple = (), kwargs: dict[str, object] | None = None
    ) -> object:
        # Drawing numbers that are not there costs torch an import of its compiler.
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        if func is torch.randn:
            func = torch.empty
        return func(*args, **(kwargs or {}))


@contextmanager
def described_by(config: Path, otherwise: str, *weights: Path) -> Iterator[None]:
    """Build the network that a file of settings describes; ValueError, with the file and ``otherwise``, if that fails.

    Untrusted settings can have any type, so a constructor may raise any error. They can have any size, too: a network
    with more numbers than its ``weights`` is stopped before it takes the memory.
    """
    left = sum(map(num_numbers, weights))

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else 1 + parameter.numel()
        if left < 0:
            raise ValueError(f"it describes more numbers than its weights hold (at {type(module).__name__}.{name})")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        reason = f"it lacks {reason}" if isinstance(error, KeyError) else reason or type(error).__name__
        raise ValueError(f"{config} {otherwise}: {reason}") from error
    finally:
        hook.remove()


def num_numbers(whole: Path) -> int:
    """An upper bound of the numbers of a network whose weights are in a file, or in its parts."""
    try:
        files = [safe_open(path, framework="pt") for path in files_of(whole)]
        shapes = [file.get_slice(name).get_shape() for file in files for name in file.keys()]  # noqa: SIM118
    except (OSError, SafetensorError):  # whoever reads the weights says so
        return UNTOLD_NUMBERS
    return UNTOLD_NUMBERS + 2 * sum(map(math.prod, shapes))  # one parameter may have two names


def planned_as(tensors: Mapping[str, Tensor]) -> list[Planned]:
    """Tensors as they are."""
    return [Planned(name, value.dtype, tuple(value.shape)) for name, value in tensors.items()]


def write_tensors(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str] = FRAMEWORK) -> None:
    """Write tensors as they are into one file; ValueError if one is not finite, and an earlier file stays."""
    check_finite(weights.items(), f"{path} is not written")
    write_safetensors(path, planned_as(weights), lambda name: weights[name].detach().cpu(), metadata)


def stored_floats(whole: Path, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, or of its parts, whose names have the prefix, in single precision, one after the other.

    Raises ValueError, naming it, for one that is not finite.
    """
    for path in files_of(whole):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name.startswith(prefix):
                    value = file.get_tensor(name)
                    check_finite([(name, value)], str(path))
                    # A copy: the file may be replaced while the model lives.
                    yield name, value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)


def files_of(path: Path) -> list[Path]:
    """A file of weights or, if there is an index instead, the files of its parts."""
    index = path.with_name(f"{path.name}.index.json")
    if path.is_file() or not index.is_file():
        return [path]
    try:
        return sorted({path.with_name(str(name)) for name in as_object(read_object(index)["weight_map"]).values()})
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{index} is no index of weights") from error
