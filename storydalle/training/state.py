"""A run's whole state (weights, optimizer, loops, callbacks) as one safetensors file: nothing in it is executed.

Tensors are stored as such; the tree around them is json in the file's metadata.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open

from storydalle.files.json_values import Json, as_list, as_text
from storydalle.files.text import parsed
from storydalle.files.weights import planned_as, write_safetensors

TREE = "storydalle.training_state"


class ForeignState(ValueError):
    """A checkpoint from a run with other settings."""


Scalar = None | bool | int | float | str


class SafetensorsCheckpointIO(CheckpointIO):
    """Lightning's checkpoints through ``save_state`` and ``load_state``."""

    def save_checkpoint(self, checkpoint: dict[str, object], path: str | Path, storage_options: object = None) -> None:
        save_state(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, object]:
        return load_state(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def save_state(state: dict[str, object], path: Path) -> None:
    """Write ``state`` to a temporary file and move it to ``path``: a kill leaves the old file or the new one."""
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_pack(state, tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, planned_as(tensors), tensors.__getitem__, {TREE: tree})


def load_state(path: Path) -> dict[str, Any]:  # Lightning's own
    """Read what ``save_state`` wrote; ValueError, naming the file, for a truncated or foreign one."""
    try:
        with safe_open(path, framework="pt") as file:
            tree = (file.metadata() or {}).get(TREE)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is no readable checkpoint ({error}); start without resume=true") from error
    if tree is None:
        raise ValueError(f"{path} holds weights but no training state; start without resume=true")
    return _unpack(parsed(tree), tensors)


def _pack(value: object, tensors: dict[str, torch.Tensor]) -> object:
    """Scalars stay as they are; a container becomes {"its type": items}, a tensor {"tensor": its name in the file}."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_pack(item, tensors) for item in value]}
    if isinstance(value, Path):
        return str(value)
    raise ValueError(f"a checkpoint cannot hold a {type(value).__name__}: keep tensors, containers and scalars in it")


def _unpack(value: Json, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[as_text(content)]
    if kind == "dict":
        return {_unpack(key, tensors): _unpack(item, tensors) for key, item in map(as_list, as_list(content))}
    items = [_unpack(item, tensors) for item in as_list(content)]
    return items if kind == "list" else tuple(items)
