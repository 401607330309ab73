"""Classes by their names in files and configs; a class is imported when it is needed."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

Base = TypeVar("Base")


class Registry(Generic[Base]):
    """All kinds of one thing: a name, and the dotted class that it stands for.

    A class is imported when its name is looked up. So the module of a base class can hold the registry of its
    subclasses, and a kind that is not used is not imported. To add a kind, add a line.
    """

    def __init__(self, thing: str, classes: Mapping[str, str], unnamed: str | None = None, key: str = "kind") -> None:
        """``thing`` is named in messages ("a backbone"); ``unnamed`` is the kind of configs that have no ``key``."""
        self.thing, self.classes, self.unnamed, self.key = thing, dict(classes), unnamed, key

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def check(self, kind: object) -> str:
        """Return the name if it is known; ValueError, with the known names, if not."""
        if not isinstance(kind, str) or kind not in self.classes:
            raise ValueError(f"{self.thing} of {self.key} {kind!r} is none of {', '.join(self.classes)}")
        return kind

    def named(self, kind: object) -> type[Base]:
        """The class of a name; ValueError as for ``check``."""
        module, _, name = self.classes[self.check(kind)].rpartition(".")
        found: type[Base] = getattr(importlib.import_module(module), name)
        return found

    def split(self, config: Mapping[str, object]) -> tuple[type[Base], dict[str, object]]:
        """The class that a config names, and the rest of it: its settings."""
        settings = dict(config)
        kind = settings.pop(self.key) if self.unnamed is None else settings.pop(self.key, self.unnamed)
        return self.named(kind), settings
