"""A protocol: everything that must agree before two numbers may stand in one column, as one frozen, hashed record."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storydalle.files.records import canonical_json, protocol_hash, sha256_of_text

SCORES = 2
"""Version of all scores: one that is computed otherwise raises it, so that numbers from before have another hash.

2: the kernel distance compares frames of different stories; every frame is judged as the picture of 8 bits that it is
saved as; probes take other inputs from the story before, in the order of the split, whatever the batches.
"""
FRAME_CHOICE = "sha256 of the clip's name"
AVERAGING = "ratios of sums over stories; characters micro and macro"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that a protocol judges by."""

    name: str
    sha256: str  # of its weights
    resize: str | None = None  # how images reach the network's own size, where that is a choice


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What was measured on what, by what.

    ``resolution`` is the size in pixels at which frames are judged, real ones and drawn ones alike, and
    ``interpolation`` how they reach it. ``texts`` says which words pictures are compared with. ``data`` holds the
    options that decide which stories there are, among them the window.
    """

    name: str
    dataset: str
    version: str
    data: Mapping[str, Any]
    split: str
    num_stories: int
    stories: str  # sha256 of the ids, in order
    num_targets: int | None  # None where stories differ in length
    resolution: int
    metrics: tuple[str, ...]
    frame_choice: str = FRAME_CHOICE
    interpolation: str = "centre square, lanczos"
    averaging: str = AVERAGING
    texts: str | None = None
    features: Network | None = None
    labels: Network | None = None
    classifier: Network | None = None
    text_network: Network | None = None
    num_negatives: int | None = None
    subset_size: int | None = None  # frames of a side, of which the kernel distance compares many subsets
    scores: int = SCORES
    seed: int = 0  # of what the judging itself draws: negatives, subsets
    left_out: str | None = None  # sha256 of the ids of stories that were not drawn whole, where that was allowed

    def record(self) -> dict[str, Any]:
        """The fields as json knows them."""
        return asdict(self) | {"data": dict(self.data), "metrics": sorted(self.metrics)}

    @property
    def hash(self) -> str:
        """sha256 of the record's canonical json."""
        return protocol_hash(self.record())


def sha256_of_ids(ids: Sequence[str]) -> str:
    return sha256_of_text(canonical_json(list(ids)))


def differing_fields(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What two recorded protocols disagree in, as ``resolution (64, 128)``; nested fields with their path."""
    found = []
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += [f"{name}.{inner}" for inner in differing_fields(one, other)]
        elif one != other:
            found.append(f"{name} ({shortened(one)}, {shortened(other)})")
    return found


def shortened(value: Any, length: int = 24) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= length else f"{text[: length // 2]}..."
