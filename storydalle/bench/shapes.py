"""The sizes that a bench measures at."""

from dataclasses import dataclass
from typing import Annotated

from storydalle.mistakes import UserError
from storydalle.settings import Between, Count, Seed


@dataclass(frozen=True)
class NetworkSizes:
    """A retrofitted minDALL-E of random weights."""

    dim: Count
    depth: Count
    num_heads: Count
    text_vocab_size: Count
    image_vocab_size: Count
    text_length: Count
    source_blocks: str  # all, third or none


@dataclass(frozen=True)
class Drawing:
    """How much one story draws."""

    image_length: Count  # codes a frame
    num_candidates: Count


@dataclass(frozen=True)
class DecodeShape:
    """Whole stories."""

    network: NetworkSizes
    num_frames: Count
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class LargeShape:
    """Steps at the beginning of a story's frames, too long to draw whole ones."""

    network: NetworkSizes
    num_frames: Count
    num_steps: Annotated[int, Between(3)]  # codes a frame; all but two are measured
    source_length: Count  # codes of the source, which all steps attend to


@dataclass(frozen=True)
class GrowthShape:
    """The sizes along each axis; of the others, the first drawing of ``decode`` has those that stay."""

    frames: tuple[Count, ...]  # of a story
    candidates: tuple[Count, ...]
    stories: tuple[Count, ...]  # of a training batch
    widths: tuple[Count, ...]  # of the model
    set_sizes: tuple[Count, ...]  # stories of a data set that is encoded

    def __post_init__(self) -> None:
        for name, sizes in vars(self).items():
            if len(set(sizes)) < 2:
                raise UserError(f"growth.{name}={list(sizes)}: growth needs two sizes or more")


@dataclass(frozen=True)
class Shape:
    """How much is measured, and how often."""

    model: str | None  # by default a shipped one
    num_stories: Count  # of ToonSV
    num_evaluated: Count  # of ToonSV, too
    picture_size: Annotated[int, Between(64, 256)]  # pixels of a side
    rounds: Count
    seconds: Annotated[float | int, Between(0)]  # after which a case begins no further round
    batch_size: Count
    workers: Annotated[int, Between(0, 64)]  # processes that read pictures
    seed: Seed
    threads: Annotated[int, Between(1, 1024)] | None  # by default as many as torch takes
    decode: DecodeShape
    large: LargeShape
    growth: GrowthShape

    def __post_init__(self) -> None:
        if self.num_stories < self.batch_size:
            raise UserError(f"num_stories={self.num_stories} do not fill a batch: give at least {self.batch_size}")
