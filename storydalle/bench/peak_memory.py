"""The most bytes that tensors took at a time, by watching every storage that an operation makes until it is freed."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """``peak`` counts what ``before`` holds too; scratch space inside an operation is not seen."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.now = self.peak = 0
        for tensor in before:
            self.watch(tensor)

    def watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        made = function(*arguments, **(options or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.watch(leaf)
        return made
