"""Take overrides as they were typed: quote paths, names and sentences before Hydra's grammar reads them.

Hydra would read ``out=2024_11_26`` as a number and ``source=a,b.png`` as two values. These keep their meaning:
``null``, quotes, ``${...}`` (but not in a list of captions), and with -m the commas between values.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto

from storydalle.files.paths import user_path
from storydalle.mistakes import UserError

# The last parts of the keys of settings that are or may be paths, and of those that are another name or text.
PATHS = frozenset(
    (
        *("captions", "source", "story", "model", "images", "out", "save", "export", "compare", "readme", "runs"),
        *("pretrained", "text_to_image", "caption_tokenizer", "shards", "target", "image_encoder", "root", "ids"),
        *("photos", "language_model", "classifier", "text_network", "folder", "ids_folder", "assertions"),
    )
)
TEXTS = PATHS | {"monitor", "name", "baseline", "added_names", "metrics", "project", "entity", "group", "tags"}
LISTS = frozenset(
    ("captions", "assertions", "model", "images", "readme", "added_names", "metrics", "tags")
)  # of these, where it reads as a list
RECIPES = frozenset(("pretrained",))  # of these, where it reads as a group
SENTENCES = frozenset(("captions", "assertions"))  # of these a list says what is drawn, word by word
SWEEPING = re.compile(r"-m|--multirun|hydra\.mode=MULTIRUN")
SEEDS, MOST_SEEDS = "seeds", 1000
LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
INTERPOLATION = re.compile(r"(?<!\\)((?:\\\\)*)\$\{")
ESCAPED = r"\1\\${"
OPENING, CLOSING, QUOTES = "[({", "])}", "'\""


class Reading(Enum):
    """The kinds of value that Hydra's grammar knows."""

    TEXT, NULL, LIST, GROUP = auto(), auto(), auto(), auto()
    CHOICES, SWEEP, OTHER, NOTHING = auto(), auto(), auto(), auto()


Grammar = Callable[[str], Reading]


def as_typed(arguments: Sequence[str], reading: Grammar) -> list[str]:
    """The command line with its texts quoted, so that Hydra reads them as they were typed.

    ``reading`` says how Hydra's grammar understands a value.
    """
    is_sweep = any(SWEEPING.fullmatch(argument) for argument in arguments)
    return [override_as_typed(argument, is_sweep, reading) for argument in with_seeds(arguments, is_sweep)]


def with_seeds(arguments: Sequence[str], is_sweep: bool) -> list[str]:
    """The command line with ``seeds=3`` written as ``seed=0,1,2``."""
    keys = [argument.partition("=")[0] for argument in arguments]
    if SEEDS not in keys:
        return list(arguments)
    asked = arguments[keys.index(SEEDS)]
    if keys.count(SEEDS) > 1 or "seed" in keys:
        raise UserError(f"{asked} beside other seeds: give either seeds= or seed=, once")
    if not is_sweep:
        raise UserError(f"{asked} are the runs of a sweep: give -m, or seed= for one run")
    number = asked.partition("=")[2]
    if not (number.isascii() and number.isdigit() and 1 <= int(number) <= MOST_SEEDS):
        raise UserError(f"{asked}: use a whole number between 1 and {MOST_SEEDS}, or seed= with the seeds themselves")
    values = f"seed={','.join(map(str, range(int(number))))}"
    return [values if key == SEEDS else argument for key, argument in zip(keys, arguments, strict=True)]


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
        return f"{key}={text_as_typed(value, name, is_sweep, reading)}"
    is_kept = reading(value) is not Reading.NOTHING or value.startswith((*OPENING, *QUOTES))
    return argument if is_kept else f"{key}={quoted(value)}"


def text_as_typed(value: str, name: str, is_sweep: bool, reading: Grammar) -> str:
    """A text quoted for Hydra, for the setting ``name``; in a list or a sweep, each text on its own."""
    read = reading(value)
    if read in (Reading.TEXT, Reading.NULL) or value.startswith(tuple(QUOTES)):
        return value
    if name in RECIPES and read is Reading.GROUP:
        return value
    if is_sweep and read is Reading.CHOICES:
        return ",".join(text_as_typed(part, name, False, reading) for part in parted(value))
    if name in LISTS and read in (Reading.LIST, Reading.NOTHING) and LIST.fullmatch(value):
        inside = value.strip()[1:-1].strip()
        parts = (text_as_typed(part, "", False, reading) for part in parted(inside))
        return f"[{','.join(parts)}]" if inside else value
    return value if is_sweep and read is Reading.SWEEP else quoted(value)


def without_flag(arguments: Sequence[str], *names: str) -> list[str]:
    """The command line without a flag and its value."""
    kept, words = [], iter(arguments)
    for word in words:
        if word in names:
            next(words, None)
        elif word.partition("=")[0] not in names:
            kept.append(word)
    return kept


def check_texts(tree: object, key: str = "") -> None:
    """Refuse texts with zero bytes and impossible paths before any work begins."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            check_texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list):
        for value in tree:
            check_texts(value, f"a text of {key}" if key in SENTENCES else key)
    elif isinstance(tree, str):
        if "\0" in tree:
            raise UserError(f"{key}={tree!r} contains a zero byte: remove it")
        if key.rpartition(".")[2] in PATHS:
            user_path(tree)


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
