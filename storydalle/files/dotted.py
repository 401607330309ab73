"""Dotted keys of settings, such as ``data.train.num_stories``, in a tree of settings."""

from collections.abc import Iterator, Mapping, MutableMapping

Tree = Mapping[str, object]
MISSING = object()


def value_at(tree: Tree, key: str, missing: object = None) -> object:
    """The value of a dotted key; ``missing`` if there is none. A group may itself have names with dots."""
    if key in tree:
        return tree[key]
    for name, inner in tree.items():
        if isinstance(inner, Mapping) and key.startswith(f"{name}."):
            found = value_at(inner, key.removeprefix(f"{name}."), MISSING)
            if found is not MISSING:
                return found
    return missing


def put(tree: MutableMapping[str, object], key: str, value: object) -> None:
    """Set the value of a dotted key; missing groups on the way are created."""
    *parts, last = key.split(".")
    for part in parts:
        inner = tree.setdefault(part, {})
        assert isinstance(inner, MutableMapping), f"{part} of {key} is a value, not a group"
        tree = inner
    tree[last] = value


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and values of everything that is not a group, and of empty groups."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def all_keys(tree: Tree, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all values and of all groups."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from all_keys(value, f"{prefix}{key}.")


def key_of(override: str) -> str:
    """The key that an override of a command line sets, adds or removes: ``a.b`` of ``a.b=1``, ``+a.b=1``, ``~a.b``."""
    return override.partition("=")[0].lstrip("+~")
