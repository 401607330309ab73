"""The headers of a cache of codes, as JSON holds them. ``encoding`` writes each one last, so a whole one is trusted."""

from pathlib import Path
from typing import TypedDict, cast

from storydalle.files.reading import object_if_whole

HEADER = "header.json"


class CodesKey(TypedDict):
    """All that codes depend on: equal keys make equal codes."""

    format: int
    stories: str  # their fingerprint
    resolution: int
    image_tokenizer: str  # hash of what encodes


class CodesHeader(TypedDict):
    """Codes of all clips of a split."""

    key: CodesKey
    num_codes: int  # a frame
    num_clips: int
    num_problems: int
    frames: list[int]  # of each shard
    shards: str  # hash of their records


class ShardRecord(TypedDict):
    """The hash of the encoder of a shard of clips, and the clips as they are now."""

    format: int
    resolution: int
    image_tokenizer: str
    clips: str  # hash of names and stamps


class EncodedShard(ShardRecord):
    """A shard that is written."""

    frames: list[int]  # of each clip
    problems: dict[str, str]


class ArrayFile(TypedDict):
    """A file of raw numbers."""

    dtype: str
    shape: list[int]


class TablesKey(TypedDict):
    codes: CodesHeader
    caption_tokenizer: str  # fingerprint


class TablesHeader(TypedDict):
    """Tables of the stories all of whose clips have frames."""

    key: TablesKey
    num_stories: int
    left_out: int
    pad_id: int
    columns: dict[str, ArrayFile]


def codes_header(folder: Path) -> CodesHeader | None:
    """Read the header of a folder of codes; None where it is missing or truncated."""
    return cast(CodesHeader | None, object_if_whole(folder / HEADER))


def tables_header(folder: Path) -> TablesHeader | None:
    """Read the header of a folder of tables; None where it is missing or truncated."""
    return cast(TablesHeader | None, object_if_whole(folder / HEADER))


def shard_if_whole(folder: Path, shard: int) -> EncodedShard | None:
    """Read the record of a shard; None where it is missing or truncated."""
    return cast(EncodedShard | None, object_if_whole(folder / f"{shard:05d}.json"))


def written_shard(folder: Path, shard: int) -> EncodedShard:
    """Read the record of a shard that this process, or one that it waited for, has written."""
    found = shard_if_whole(folder, shard)
    assert found is not None
    return found
