"""Mutants of whole files, and a reader run on each: what it makes of them, in a child process that may die of it.

Everything is drawn from a seed: a mutant that falls is made again by its reader's name and its number.
"""

import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from storydalle.files.process_memory import peak_megabytes

CPU_SECONDS, ALL_SECONDS = 20, 1500  # of one mutant, and of all of a reader (of a clock, as pipes may be waited for)
MEGABYTES = 300  # that a mutant may add to the memory of the whole file's reading
JSONS = (".json", ".jsonl")


class Reader(NamedTuple):
    """Something that reads files of strangers."""

    files: Sequence[Path]  # whole ones; each is mutated in its turn
    read: Callable[[], Any]
    refusals: tuple[type[Exception], ...] = (ValueError,)  # by which ``read`` refuses a file


class Counts(NamedTuple):
    tried: int
    accepted: int
    refused: int
    others: list[str]


# ------------------------------------------------------------------------------------------------ mutants


def mutated(path: Path, draw: random.Random) -> bytes:
    """The bytes of a file, changed somewhere; json in half of the cases as json."""
    content = path.read_bytes()
    if path.suffix in JSONS and draw.random() < 0.7:
        with contextlib.suppress(ValueError):
            return mutated_json(content, path.suffix, draw)
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        draw.choice(CHANGES)(changed, draw)
    return bytes(changed)


def flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(min(len(content), draw.choice((1, 1, 4, 16)))):
        content[draw.randrange(len(content))] = draw.randrange(256)


def flip_early(content: bytearray, draw: random.Random) -> None:
    """Where headers are."""
    if content:
        content[draw.randrange(min(len(content), 64))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def truncate(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content) + 1) :]


def cut_out(content: bytearray, draw: random.Random) -> None:
    start, stop = span(content, draw)
    del content[start:stop]


def duplicate(content: bytearray, draw: random.Random) -> None:
    start, stop = span(content, draw)
    content[start:start] = content[start:stop]


def move(content: bytearray, draw: random.Random) -> None:
    start, stop = span(content, draw)
    part = content[start:stop]
    del content[start:stop]
    at = draw.randrange(len(content) + 1)
    content[at:at] = part


def blank(content: bytearray, draw: random.Random) -> None:
    start, stop = span(content, draw)
    content[start:stop] = draw.choice((b"\0", b"\xff", b" ", b"\n", b"9")) * (stop - start)


def enlarge(content: bytearray, draw: random.Random) -> None:
    """Numbers, in words or as four or eight bytes, that become huge or negative."""
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    if digits and draw.random() < 0.5:
        at = draw.choice(digits)
        content[at : at + 1] = draw.choice((b"-1", b"0", b"9" * 9, b"9" * 20, b"1e999", b"0x7fffffff", b"nan"))
    elif len(content) > 8:
        at, size = draw.randrange(len(content) - 8), draw.choice((2, 4, 8))
        content[at : at + size] = draw.choice((b"\xff" * size, b"\0" * size, b"\xff" * (size - 1) + b"\x7f"))


def insert(content: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(content) + 1)
    content[at:at] = draw.choice(
        (b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\n" * 50, b'"', b",", b"[" * 3000, b"../../", b"%s$x")
    )


def empty(content: bytearray, draw: random.Random) -> None:
    del content[:]


def span(content: bytearray, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(content) + 1)
    return start, min(len(content), start + draw.choice((1, 4, 16, 64, 1000)))


Change = Callable[[bytearray, random.Random], None]
CHANGES: tuple[Change, ...] = (flip, flip_early, truncate, cut_out, duplicate, move, blank, enlarge, insert)
CHANGES = CHANGES * 5 + (empty,)

NESTED: Any = []
for _ in range(400):
    NESTED = [NESTED]
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 0.5, 7, 10**6, 2**31, 2**63, 10**30, 10**400, float("inf"), float("nan"), -(2**63)),
    *(
        "",
        " ",
        "text",
        "a\0b",
        "x" * 3000,
        "../../etc/passwd",
        "/etc/passwd",
        "~nosuchuser/x",
        "\ud800",
        "1",
        "$x_{",
        "é",
    ),
    *([], {}, [[]], [None], {"": None}, [1, "a", {}], {"a": {"a": {}}}, NESTED),
)


def mutated_json(content: bytes, suffix: str, draw: random.Random) -> bytes:
    text = content.decode()
    if suffix == ".jsonl":
        lines = text.splitlines()
        at = draw.randrange(len(lines))
        lines[at] = json.dumps(changed_tree(json.loads(lines[at]), draw))
        return "\n".join(lines).encode(errors="surrogatepass")
    return json.dumps(changed_tree(json.loads(text), draw)).encode(errors="surrogatepass")


def changed_tree(tree: Any, draw: random.Random) -> Any:
    """The tree with one to three of its values changed, left out, or put under another name."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(places_of(tree))
        if not places:
            return draw.choice(VALUES)
        holder, key = draw.choice(places)
        if key not in (holder if isinstance(holder, dict) else range(len(holder))):
            continue
        kind = draw.random()
        if kind < 0.6:
            holder[key] = draw.choice(VALUES)
        elif kind < 0.75:
            del holder[key]
        elif kind < 0.85 and isinstance(holder, dict):
            holder[str(draw.choice(VALUES))[:40]] = holder.pop(key)
        elif kind < 0.9:
            holder[key] = [holder[key]]
        else:
            holder[key] = str(holder[key])[:2000] if draw.random() < 0.5 else {"a": holder[key]}
    return tree if draw.random() < 0.98 else draw.choice(VALUES)


def places_of(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with every key or index of it."""
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else []
        for key in keys:
            yield each, key
            waiting.append(each[key])


# ------------------------------------------------------------------------------------------------ reading them


class TooSlow(BaseException):
    """Not an Exception: a reader may not take it for damage."""


def try_mutants(name: str, reader: Reader, number: int, kept: Path) -> Counts:
    """Read ``number`` mutants in a child process, and count what becomes of them; those that fall are kept."""
    with tempfile.TemporaryFile("w+") as told:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                read_mutants(name, reader, number, kept, told)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        status = wait_for(child)
        told.seek(0)
        rows = [json.loads(line) for line in told.read().splitlines()]
    outcomes = [row["outcome"] for row in rows]
    others = [
        f"{name} {row['number']} ({row['file']}): {row['outcome']}" for row in rows if row["outcome"] not in OUTCOMES
    ]
    if status != 0 or len(rows) < number:
        others.append(f"{name} {len(rows)}: the process ended with {status}")
    return Counts(len(rows), outcomes.count("accepted"), outcomes.count("refused"), others)


OUTCOMES = ("accepted", "refused")


def wait_for(child: int) -> int:
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(ALL_SECONDS)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:  # stopped by the keyboard
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        signal.alarm(0)


def read_mutants(name: str, reader: Reader, number: int, kept: Path, told: Any) -> None:
    """In the child: the whole file first, which must be accepted, then the mutants, one after the other."""
    torch.set_num_threads(1)  # threads of others do not survive a fork
    signal.signal(signal.SIGVTALRM, too_slow)
    outcome = outcome_of(reader)
    assert outcome == "accepted", f"{name}: the whole files: {outcome}"
    for i in range(number):
        draw = random.Random(f"{name} {i}")
        path = draw.choice(list(reader.files))
        whole = path.read_bytes()
        content = mutated(path, draw)
        path.write_bytes(content)
        before = peak_megabytes()
        try:
            outcome = outcome_of(reader)
        finally:
            path.write_bytes(whole)
        if peak_megabytes() - before > MEGABYTES:
            outcome = f"{peak_megabytes() - before} MB of memory"
        if outcome not in OUTCOMES:
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{name.replace('/', '-')}-{i}-{path.name}").write_bytes(content)
        told.write(json.dumps({"number": i, "file": path.name, "outcome": outcome}) + "\n")
        told.flush()


def too_slow(*_: Any) -> None:
    raise TooSlow


def outcome_of(reader: Reader) -> str:
    """Accepted, refused, or what else became of it."""
    sink = io.StringIO()
    with contextlib.redirect_stderr(sink), contextlib.redirect_stdout(sink):
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        try:
            reader.read()
        except reader.refusals:
            return "refused"
        except TooSlow:
            return f"more than {CPU_SECONDS} s"
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            frames = [frame for frame in frames if "storydalle/" in frame.filename] or frames
            at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
            return f"{type(error).__name__} at {at}: {' '.join(str(error).split())[:150]}"
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return "accepted"
