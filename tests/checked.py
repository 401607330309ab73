"""The check of types around every function of the package: of shapes where a signature names any, else of kinds alone.

jaxtyping binds and keeps the arguments of every call, whether they have shapes or not: half of the time of a test that
tells ToonSV's stories. A function without shapes is handed to beartype itself, which checks it as before.
"""

from functools import partial
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

plain = jaxtyping.jaxtyped
of_kinds = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))  # raises what jaxtyping raises


def names_shapes(function: FunctionType) -> bool:
    """A hint that is still a text may name some."""
    return any(isinstance(hint, str) or "jaxtyping." in repr(hint) for hint in function.__annotations__.values())


def jaxtyped(decorated: Any = None, *, typechecker: Any) -> Any:
    """As jaxtyping's, which its import hook puts around functions and classes."""
    if decorated is None:
        return partial(jaxtyped, typechecker=typechecker)
    if isinstance(decorated, FunctionType) and not names_shapes(decorated):
        return of_kinds(decorated)
    return plain(decorated, typechecker=typechecker)


def check_shapes_where_there_are_any() -> None:
    """Before the package is imported."""
    jaxtyping.jaxtyped = jaxtyped
