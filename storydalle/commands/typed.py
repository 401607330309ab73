"""Take overrides as they were typed: quote paths, names and sentences before Hydra's grammar reads them.

Hydra would read ``out=2024_11_26`` as a number and ``source=a,b.png`` as two values. These keep their meaning:
``null``, quotes, ``${...}`` (but not in a list of captions), and with -m the commas between values.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto

from storydalle.mistakes import UserError

# The last parts of the keys of settings that are or may be paths, and of those that are another name or text.
PATHS = frozenset(
    (
        *("captions", "source", "story", "model", "images", "out", "save", "export", "compare", "readme", "runs"),
        *("pretrained", "text_to_image", "caption_tokenizer", "shards", "target", "image_encoder", "root", "ids"),
        *("photos", "language_model", "classifier", "text_network", "folder", "ids_folder"),
    )
)
TEXTS = PATHS | {"monitor", "name", "added_names", "metrics", "project", "entity", "group", "tags"}
LISTS = frozenset(
    ("captions", "model", "images", "readme", "added_names", "metrics", "tags")
)  # of these, where it reads as a list
SENTENCES = frozenset(("captions",))  # of these a list says what is drawn, word by word
SWEEPING = re.compile(r"-m|--multirun|hydra\.mode=MULTIRUN")
LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
INTERPOLATION = re.compile(r"(?<!\\)((?:\\\\)*)\$\{")
ESCAPED = r"\1\\${"
OPENING, CLOSING, QUOTES = "[({", "])}", "'\""


class Reading(Enum):
    """The kinds of value that Hydra's grammar knows."""

    TEXT, NULL, LIST, CHOICES, SWEEP, OTHER, NOTHING = auto(), auto(), auto(), auto(), auto(), auto(), auto()


Grammar = Callable[[str], Reading]


def as_typed(arguments: Sequence[str], reading: Grammar) -> list[str]:
    """The command line with its texts quoted, so that Hydra reads them as they were typed.

    ``reading`` says how Hydra's grammar understands a value.
    """
    is_sweep = any(SWEEPING.fullmatch(argument) for argument in arguments)
    return [override_as_typed(argument, is_sweep, reading) for argument in arguments]


def override_as_typed(argument: str, is_sweep: bool, reading: Grammar) -> str:
    key, equals, value = argument.partition("=")
    if argument.startswith(("-", "~")) or not equals:
        return argument
    name = key.lstrip("+").rpartition(".")[2]
    if name in TEXTS and value.strip("'\" ") == "":
        raise UserError(f"{key}= is empty: give a value, or leave the setting out")
    if name in SENTENCES and "[" in value:
        return f"{key}={INTERPOLATION.sub(ESCAPED, value)}"
    if name in TEXTS:
        return f"{key}={text_as_typed(value, name in LISTS, is_sweep, reading)}"
    is_kept = reading(value) is not Reading.NOTHING or value.startswith((*OPENING, *QUOTES))
    return argument if is_kept else f"{key}={quoted(value)}"


def text_as_typed(value: str, may_be_list: bool, is_sweep: bool, reading: Grammar) -> str:
    """A text quoted for Hydra; in a list or a sweep, each text on its own."""
    read = reading(value)
    if read in (Reading.TEXT, Reading.NULL) or value.startswith(tuple(QUOTES)):
        return value
    if is_sweep and read is Reading.CHOICES:
        return ",".join(text_as_typed(part, may_be_list, False, reading) for part in parted(value))
    if may_be_list and read in (Reading.LIST, Reading.NOTHING) and LIST.fullmatch(value):
        inside = value.strip()[1:-1].strip()
        return (
            f"[{','.join(text_as_typed(part, False, False, reading) for part in parted(inside))}]" if inside else value
        )
    return value if is_sweep and read is Reading.SWEEP else quoted(value)


def quoted(value: str) -> str:
    """A value in quotes, in which Hydra changes no character."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{escaped}'"


def parted(value: str) -> Iterator[str]:
    """Split at the commas outside brackets and quotes."""
    start = depth = 0
    quote = ""
    for match in re.finditer(r"\\.|['\"\[\](){},]", value):
        sign = match[0]
        if quote or sign in QUOTES:
            quote = "" if sign == quote else quote or sign * (sign in QUOTES)
        elif sign in OPENING or sign in CLOSING:
            depth += 1 if sign in OPENING else -1
        elif sign == "," and depth == 0:
            yield value[start : match.start()].strip()
            start = match.end()
    yield value[start:].strip()
