"""The weights of a file of torch or of safetensors, by name and shape; the numbers are read when they are asked for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from storydalle.checkpoints.torch_files import ForeignFile, open_torch_file, tensors_of
from storydalle.weight_files import TYPES

DTYPES = {name: dtype for dtype, name in TYPES.items()}


class StoredWeights(NamedTuple):
    """What an open file holds."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    read: Callable[[str], Tensor]  # one tensor, as it was saved


@contextmanager
def stored_weights(path: Path, key: str | None = None) -> Iterator[StoredWeights]:
    """Open a state dict, a pickled network, or the dictionary ``key`` of a checkpoint.

    Raises ForeignFile, naming the file, where it is no such file, has no ``key``, or holds no tensors there.
    """
    if path.suffix == ".safetensors":
        yield _safe_weights(path)
        return
    with open_torch_file(path) as file:
        tree = file.content
        if key is not None:
            if not isinstance(tree, Mapping) or key not in tree:
                raise ForeignFile(f"{path} has no {key}, in which its weights should be", path)
            tree = tree[key]
        tensors = tensors_of(tree)
        if not tensors:
            raise ForeignFile(f"{path} holds no weights", path)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        yield StoredWeights(path, shapes, dtypes, lambda name: file.read(tensors[name]))


def _safe_weights(path: Path) -> StoredWeights:
    """Of a file of safetensors, which stays open for as long as its tensors are asked for."""
    try:
        archive = safe_open(path, framework="pt")
        slices = {name: archive.get_slice(name) for name in archive.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        dtypes = {name: DTYPES[part.get_dtype()] for name, part in slices.items()}
    except KeyError as error:
        raise ForeignFile(f"{path} holds numbers of the kind {error}, which no model here has") from error
    except (OSError, SafetensorError) as error:
        raise ForeignFile(f"{path} is no readable file of safetensors: {error}") from error
    return StoredWeights(path, shapes, dtypes, archive.get_tensor)
