"""The sizes that a bench measures at."""

from dataclasses import dataclass
from typing import Annotated

from storydalle.mistakes import UserError
from storydalle.settings import Between, Count, Seed


@dataclass(frozen=True)
class Shape:
    """How much is measured, and how often."""

    model: str | None  # by default a shipped one
    num_stories: Count  # of ToonSV
    picture_size: Annotated[int, Between(64, 256)]  # pixels of a side
    rounds: Count
    batch_size: Count
    workers: Annotated[int, Between(0, 64)]  # processes that read pictures
    seed: Seed

    def __post_init__(self) -> None:
        if self.num_stories < self.batch_size:
            raise UserError(f"num_stories={self.num_stories} do not fill a batch: give at least {self.batch_size}")
