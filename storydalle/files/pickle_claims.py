"""Check the lengths and nesting that a pickle claims, opcode by opcode, before Python's reader allocates memory for
them.

Python's reader allocates memory for a length, or for an index in its table of objects (the memo), as soon as it reads
it, so nine bytes can take gigabytes. And the hash of a deeply nested tuple calls itself until the process dies.
"""

import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from mmap import mmap
from pickletools import opcodes

import numpy as np

MAX_DEPTH = 100  # of tuples in tuples, and of what was read
MAX_TOLD = 10**7  # objects, one that is referred to twice counted twice; or
TOLD_A_BYTE = 100  # so many times the bytes of the file, where that is more


class Refused(pickle.UnpicklingError):
    """A pickle contains something that no data needs."""


NAMES = {each.name: ord(each.code) for each in opcodes}
# Bytes of an opcode's argument; or the length that stands before so many bytes; or lines (pickletools: n < 0).
LENGTHS = {-2: struct.Struct("<B"), -3: struct.Struct("<i"), -4: struct.Struct("<I"), -5: struct.Struct("<Q")}
FIXED = {ord(each.code): each.arg.n if each.arg else 0 for each in opcodes if each.arg is None or each.arg.n >= 0}
COUNTED = {ord(each.code): LENGTHS[each.arg.n] for each in opcodes if each.arg and each.arg.n in LENGTHS}
LINES = {ord(each.code): 1 + each.arg.name.endswith("_pair") for each in opcodes if each.arg and each.arg.n == -1}


class _Stack:
    """The nesting depth of each object on the reader's stack."""

    def __init__(self) -> None:
        self.depths: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[int, int] = {}

    def put(self, place: int) -> None:
        self.memo[place] = self.depths[-1]

    def get(self, place: int) -> None:
        self.depths.append(self.memo.get(place, 0))

    def memoize(self) -> None:
        self.put(len(self.memo))

    def mark(self) -> None:
        self.marks.append(len(self.depths))

    def pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.depths):
            self.marks.pop()
        else:
            self.depths.pop()

    def duplicate(self) -> None:
        self.depths.append(self.depths[-1])

    def take(self, number: int) -> list[int]:
        """Remove and return the last ``number`` entries."""
        if number > len(self.depths):
            raise IndexError
        cut = len(self.depths) - number
        taken = self.depths[cut:]
        del self.depths[cut:]
        return taken

    def take_marked(self) -> list[int]:
        return self.take(len(self.depths) - self.marks.pop())

    def replace(self, number: int | None, pushed: int) -> None:
        """Remove some entries, or those after the last mark, and push plain objects."""
        self.take_marked() if number is None else self.take(number)
        self.depths += [0] * pushed

    def nest(self, inside: Iterable[int]) -> None:
        depth = 1 + max(inside, default=0)
        if depth > MAX_DEPTH:
            raise Refused(f"it nests tuples {depth} deep and more")
        self.depths.append(depth)


def _effects() -> dict[int, Callable[[_Stack], object]]:
    """Effects on the stack of opcodes without a length or a place; the others push one plain object."""

    def plain(taken: int | None, pushed: int) -> Callable[[_Stack], object]:
        return lambda stack: stack.replace(taken, pushed)

    known: dict[str, Callable[[_Stack], object]] = {
        **{"MARK": _Stack.mark, "POP": _Stack.pop, "DUP": _Stack.duplicate, "MEMOIZE": _Stack.memoize},
        **{f"TUPLE{n}": lambda stack, n=n: stack.nest(stack.take(n)) for n in (1, 2, 3)},  # type: ignore[misc]
        **{name: lambda stack: stack.nest(stack.take_marked()) for name in ("TUPLE", "FROZENSET")},
        **{name: plain(None, 1) for name in ("LIST", "DICT", "OBJ", "INST")},
        **{name: plain(None, 0) for name in ("APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK")},
        **{name: plain(0, 0) for name in ("PROTO", "FRAME", "READONLY_BUFFER", "STOP")},
        **{name: plain(1, 0) for name in ("APPEND", "BUILD")},
        **{"SETITEM": plain(2, 0), "BINPERSID": plain(1, 1), "NEWOBJ_EX": plain(3, 1)},
        **{name: plain(2, 1) for name in ("NEWOBJ", "STACK_GLOBAL")},
        "REDUCE": lambda stack: stack.depths.append(max(stack.take(2))),  # a function may return what it was given
    }
    return {NAMES[name]: effect for name, effect in known.items()}


EFFECTS = _effects()
PUTS, GETS = ({NAMES[name.format(kind)] for name in ("{}", "BIN{}", "LONG_BIN{}")} for kind in ("PUT", "GET"))
PUSHES = frozenset(NAMES.values()) - EFFECTS.keys() - PUTS - GETS
FRAME, STOP = NAMES["FRAME"], NAMES["STOP"]


def check_claims(content: bytes | mmap, start: int = 0) -> int:
    """Return the end of the pickle that begins at ``start``.

    Raises Refused if a length is negative, if a memo index is larger than the number of bytes before it (a pickle
    cannot have that many objects), or if tuples are nested more than ``MAX_DEPTH`` deep; EOFError if a length reaches
    beyond the content, or the pickle has no end; UnpicklingError for anything that is not a pickle.
    """
    stack, at, end = _Stack(), start, len(content)
    while at < end:
        code, first = content[at], at + 1
        size = FIXED.get(code)
        if size is None:
            first, after = _argument(content, code, first)
        else:
            after = first + size
        if after > end:
            break
        if code == STOP:
            return after
        if code == FRAME and after + int.from_bytes(content[first:after], "little") > end:
            break
        try:
            if (effect := EFFECTS.get(code)) is not None:
                effect(stack)
            elif code in PUSHES:
                stack.depths.append(0)
            else:
                _use_memo(stack, code, content[first:after], at - start)
        except IndexError as error:
            raise pickle.UnpicklingError("it takes more from its stack than there is") from error
        at = after
    raise EOFError("pickle data was truncated")


def _argument(content: bytes | mmap, code: int, at: int) -> tuple[int, int]:
    """Start and end of an argument of variable size, if it is complete."""
    if (form := COUNTED.get(code)) is not None:
        if at + form.size > len(content):
            raise EOFError("pickle data was truncated")
        (length,) = form.unpack_from(content, at)
        if length < 0:
            raise Refused(f"it names a length of {length} bytes")
        return at + form.size, at + form.size + length
    if code not in LINES:
        raise pickle.UnpicklingError(f"it has the byte {code:#04x} in the place of an opcode")
    after = at
    for _ in range(LINES[code]):
        after = content.find(b"\n", after) + 1
        if after == 0:
            raise EOFError("pickle data was truncated")
    return at, after


def _use_memo(stack: _Stack, code: int, argument: bytes, num_before: int) -> None:
    is_text = code in LINES
    if is_text and not (len(argument) < 20 and argument[:-1].isdigit()):
        raise pickle.UnpicklingError(f"it has the place {argument[:20]!r} of its memo")
    place = int(argument) if is_text else int.from_bytes(argument, "little")
    if code in GETS:
        stack.get(place)
        return
    if place > num_before:
        raise Refused(f"it puts an object at place {place} of its memo, after {num_before} bytes")
    stack.put(place)


# ------------------------------------------------------------------------------------------------ what was read


def contents_of(value: object) -> Iterable[object]:
    """The objects in a container; nothing for anything else."""
    if isinstance(value, Mapping):
        return (*value.keys(), *value.values())
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype.hasobject else ()
    return value if isinstance(value, list | tuple | set | frozenset) else ()


def check_tree(root: object, num_bytes: int, inside: Callable[[object], Iterable[object]] = contents_of) -> None:
    """Refuse objects that cannot be walked through: containers inside themselves, nesting deeper than ``MAX_DEPTH``,
    and objects that contain each other exponentially often (a list of ten times one list, which is ten times one list,
    ...).
    """
    most = max(MAX_TOLD, TOLD_A_BYTE * num_bytes)
    totals: dict[int, int] = {}  # of finished containers, by their identity
    path: list[tuple[object, list[object], int]] = [
        (None, [root], 0)
    ]  # container, what is not looked at yet, total so far
    open_now: set[int] = set()
    while True:
        container, waiting, total = path.pop()
        while waiting:
            value = waiting.pop()
            known = totals.get(id(value))
            held = None if known is not None else list(inside(value))
            if held:
                if id(value) in open_now:
                    raise Refused("it holds a list or a dictionary that is inside itself")
                if len(path) >= MAX_DEPTH:
                    raise Refused(f"it is nested more than {MAX_DEPTH} deep")
                open_now.add(id(value))
                path += [(container, waiting, total), (value, held, 1)]
                break
            total += known or 1
            if total > most:
                raise Refused(f"its few objects tell of {total} and more, one inside another")
        else:
            if not path:
                return
            totals[id(container)] = total
            open_now.discard(id(container))
            above, rest, so_far = path.pop()
            path.append((above, rest, so_far + total))
