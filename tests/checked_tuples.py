"""Shapes of named tuples, checked where one is made: what jaxtyping's import hook does for functions and dataclasses.

A tuple that is made by ``_replace`` or ``_make`` is not looked at.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped
from torch import Tensor

import storydalle

CHECKED: set[type] = set()


def records_of(module: Any) -> Iterator[type]:
    """The named tuples and dataclasses that a module defines."""
    for value in list(vars(module).values()):
        is_own = inspect.isclass(value) and value.__module__ == module.__name__
        if is_own and (hasattr(value, "_fields") or dataclasses.is_dataclass(value)):
            yield value


def import_all() -> Iterator[Any]:
    """Every module of the package."""
    for found in pkgutil.walk_packages(storydalle.__path__, "storydalle."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def arrays_in(annotation: Any) -> list[Any]:
    """The arrays that an annotation names, however deep, with their shapes or without."""
    if inspect.isclass(annotation) and issubclass(annotation, Tensor | np.ndarray | AbstractArray):
        return [annotation]
    inner = [part for arg in get_args(annotation) for part in (arg if isinstance(arg, list) else [arg])]
    return [array for part in inner for array in arrays_in(part)]


def check_tuples() -> None:
    """Check from now on, at each construction, the named tuples with arrays of all modules imported so far."""
    modules = [module for name, module in sys.modules.items() if name.startswith("storydalle.")]
    for record in {record for module in modules for record in records_of(module)} - CHECKED:
        CHECKED.add(record)
        if hasattr(record, "_fields") and any(map(arrays_in, record.__annotations__.values())):
            record.__new__ = jaxtyped(typechecker=beartype)(record.__new__)  # type: ignore[method-assign]
