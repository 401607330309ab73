"""``metrics.json``: numbers with everything that is needed to trust and to compare them, written by code."""

import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from storydalle.files.whole import write_text

Interval = tuple[float, float]
PACKAGES = ("storydalle", "torch", "numpy", "pillow", "torchmetrics")


def canonical_json(value: object) -> str:
    """The same text for equal values: sorted keys, no spaces, no nan."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_file(path: Path | str) -> str:
    return sha256_of_files([Path(path)])


def sha256_of_files(paths: Iterable[Path]) -> str:
    """The sha256 of the contents of all files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def protocol_hash(protocol: Mapping[str, object]) -> str:
    """sha256 of the protocol's canonical json."""
    return sha256_of_text(canonical_json(protocol))


def differing_fields(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    """The fields in which two recorded protocols disagree, as ``resolution (64, 128)``; nested ones with a path."""
    found = []
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += [f"{name}.{inner}" for inner in differing_fields(one, other)]
        elif one != other:
            found.append(f"{name} ({shortened(one)}, {shortened(other)})")
    return found


def shortened(value: object, length: int = 24) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= length else f"{text[: length // 2]}..."


def git_state(package: Path) -> tuple[str | None, bool | None]:
    """The commit, and if the checkout differs from it; empty if this is not a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=package.parent, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", package.name) is None:
        return None, None
    status = git("status", "--porcelain")
    return git("rev-parse", "HEAD"), None if status is None else bool(status)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def jsonable(value: object) -> object:
    """Values for json: nan as null, intervals as pairs, keys as text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def metrics_record(
    values: Mapping[str, object],
    *,
    protocol: Mapping[str, object],
    n: Mapping[str, object],
    seeds: Sequence[int],
    device: str,
    wall_seconds: float,
    intervals: Mapping[str, Interval] | Mapping[str, Mapping[str, Interval]] | None = None,
    **more: object,
) -> dict[str, object]:
    """The record as json-ready values; ``more`` are fields of the run's own, such as the model's weights hash."""
    commit, dirty = git_state(Path(__file__))
    record = {
        "values": values,
        "intervals": intervals or {},
        "n": n,
        "seeds": seeds,
        "protocol": protocol,
        "protocol_hash": protocol_hash(protocol),
        "commit": commit,
        "dirty": dirty,
        "device": device,
        "versions": versions(),
        "wall_seconds": round(wall_seconds, 1),
    }
    repeated = sorted(record.keys() & more.keys())
    if repeated:
        raise ValueError(f"fields {', '.join(repeated)} are the record's own: choose other names")
    return {name: jsonable(value) for name, value in (record | more).items()}


def write_record(path: Path | str, record: Mapping[str, object]) -> None:
    """Write a record, readable and in one piece."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(jsonable(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
