"""Write files of ``torch.save`` one tensor at a time, so that memory holds one tensor instead of the model.

The format is the zip archive of torch >= 1.6, which ``torch_files`` reads: a pickle that names the storages of its
tensors, and a file for every storage. torch itself needs all tensors at once.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from storydalle.files.weights import Planned
from storydalle.files.whole import replaced_when_whole
from storydalle.released.torch_files import STORAGES

CLASSES = {dtype: getattr(torch, name) for name, dtype in STORAGES.items()}
ROOT, FORMAT_VERSION = "archive", b"3\n"


class _Storage(NamedTuple):
    """The numbers of one tensor, in a file called ``key``."""

    key: str
    tensor: Planned


class _Pickler(pickle.Pickler):
    """Writes planned tensors as torch writes tensors; ``keys`` are the names of their storages."""

    def __init__(self, stream: io.BytesIO, keys: dict[Planned, str]) -> None:
        super().__init__(stream, protocol=2)
        self.keys = keys

    def persistent_id(self, value: object) -> object:
        if not isinstance(value, _Storage):
            return None
        tensor = value.tensor
        return "storage", CLASSES[tensor.dtype], value.key, "cpu", torch.Size(tensor.shape).numel()

    def reducer_override(self, value: object) -> Any:  # as pickle's own
        if not isinstance(value, Planned):
            return NotImplemented
        stride = torch.empty(value.shape, device="meta").stride()
        storage = _Storage(self.keys[value], value)
        return torch._utils._rebuild_tensor_v2, (storage, 0, tuple(value.shape), stride, False, OrderedDict())


def write_torch_file(
    path: Path, planned: Sequence[Planned], read: Callable[[str], Tensor], key: str | None = None
) -> None:
    """Write a state dict, or a checkpoint with it under ``key``; each tensor is read when its turn comes.

    The file gets its name when it is complete. Raises ValueError if a tensor is not as planned.
    """
    keys = {tensor: str(number) for number, tensor in enumerate(planned)}
    tensors = {tensor.name: tensor for tensor in planned}
    tree = io.BytesIO()
    _Pickler(tree, keys).dump(tensors if key is None else {key: tensors})
    with replaced_when_whole(path) as file, zipfile.ZipFile(file, "w") as archive:

        def write(name: str, content: bytes | memoryview) -> None:
            archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}"), content)  # without the time: equal models, equal files

        write("data.pkl", tree.getvalue())
        write("byteorder", b"little")
        for tensor in planned:
            value = read(tensor.name)
            tensor.check(value)
            write(f"data/{keys[tensor]}", value.contiguous().flatten().view(torch.uint8).numpy().data)
        write("version", FORMAT_VERSION)
