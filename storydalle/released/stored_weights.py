"""The weights of a file of torch or of safetensors, by name and shape; the numbers are read when they are needed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from storydalle.files.weights import TYPES
from storydalle.released.torch_files import ForeignFile, open_torch_file, tensors_of

DTYPES = {name: dtype for dtype, name in TYPES.items()}


WRAPPER = "module"  # the level of names that torch's parallel wrappers add


class StoredWeights(NamedTuple):
    """The tensors of an open file."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    read: Callable[[str], Shaped[Tensor, "..."]]  # one tensor, as it was saved
    is_wrapped: bool  # the names of the file have one level more, ``WRAPPER``


@contextmanager
def stored_weights(path: Path, key: str | tuple[str, ...] | None = None) -> Iterator[StoredWeights]:
    """Open a state dict, a pickled network, or the first dictionary of a checkpoint that ``key`` names.

    A file with tensors at its top level is such a dictionary itself. Raises ForeignFile, naming the file, if it is
    another kind of file or has no tensors there.
    """
    if path.suffix == ".safetensors":
        yield _safe_weights(path)
        return
    with open_torch_file(path) as file:
        tree, keys = file.content, (key,) if isinstance(key, str) else key or ()
        place = next((name for name in keys if isinstance(tree, Mapping) and name in tree), None)
        found = tensors_of(tree[place] if place is not None and isinstance(tree, Mapping) else tree)
        if not found:
            lacks = f"has no {' or '.join(keys)}, in which its weights should be" if keys and place is None else None
            raise ForeignFile(f"{path} {lacks or 'holds no weights'}", path)
        names = unwrapped(found)
        tensors = {name: found[theirs] for name, theirs in names.items()}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        is_wrapped = list(names) != list(names.values())
        yield StoredWeights(path, shapes, dtypes, lambda name: file.read(tensors[name]), is_wrapped)


def _safe_weights(path: Path) -> StoredWeights:
    """The weights of a safetensors file, which stays open meanwhile."""
    try:
        archive = safe_open(path, framework="pt")
        names = unwrapped(archive.keys())
        slices = {name: archive.get_slice(theirs) for name, theirs in names.items()}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        dtypes = {name: DTYPES[part.get_dtype()] for name, part in slices.items()}
    except KeyError as error:
        raise ForeignFile(f"{path} holds numbers of the kind {error}, which no model here has") from error
    except (OSError, SafetensorError) as error:
        raise ForeignFile(f"{path} is no readable file of safetensors: {error}") from error
    is_wrapped = list(names) != list(names.values())
    return StoredWeights(path, shapes, dtypes, lambda name: archive.get_tensor(names[name]), is_wrapped)


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names of a file by their form without ``WRAPPER``; unchanged if two names would become equal."""
    names = list(names)
    found = {".".join(part for part in name.split(".") if part != WRAPPER): name for name in names}
    return found if len(found) == len(names) else {name: name for name in names}
